"""From text to padded batches: sources, tokenizer, prepared tokens, plan, loader."""
