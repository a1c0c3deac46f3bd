"""Trained networks with their tokenizer, read from a run or a folder of another library."""
