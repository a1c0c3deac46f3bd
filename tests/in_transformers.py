"""Loads exported folders as anybody does, with transformers alone, and compares with what is
expected. Run by `test_interop.py`, in whatever Python has transformers:

    python in_transformers.py FOLDER ...

Each folder has `expected.pt` beside the export in `model/`.
"""

import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

CLOSE = 2e-5


def check(folder: Path) -> None:
    expected = torch.load(folder / "expected.pt", weights_only=True)
    model, told = AutoModelForCausalLM.from_pretrained(
        folder / "model", output_loading_info=True, trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", trust_remote_code=False)
    model.eval()
    kinds = {name: found for name, found in told.items() if found}
    assert not kinds, f"loading: {kinds}"
    assert next(model.parameters()).dtype == torch.float32
    assert model.get_input_embeddings().weight[1].count_nonzero() == 0
    assert model.get_output_embeddings().weight[1].count_nonzero() == 0

    for text, ids in expected["texts"]:
        assert tokenizer(text)["input_ids"] == ids, (text, tokenizer(text)["input_ids"], ids)
        assert tokenizer.decode(ids, skip_special_tokens=True) == expected["decoded"][text], text
    assert [tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id] == [0, 1, 2]

    with torch.no_grad():
        logits = model(expected["ids"]).logits
        off = (logits - expected["logits"]).abs()
        words = [i for i in range(off.shape[-1]) if i != 1]
        assert (logits[..., 1] == 0).all()
        assert off[..., words].max() < CLOSE, f"logits differ by {off[..., words].max():.1e}"

        prompts = expected["prompts"]
        endless: dict = {"eos_token_id": -1}
        settings = endless | {"do_sample": False, "max_new_tokens": expected["new"].shape[1]}
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        assert (batch["attention_mask"][:, -1] == 1).all()  # padded on the left
        together = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :]
        assert torch.equal(together, expected["new"]), "greedy ids in a batch"
        for prompt, new in zip(prompts, expected["new"], strict=True):
            one = tokenizer(prompt, return_tensors="pt")
            alone = model.generate(**one, **settings)[0, one["input_ids"].shape[1] :]
            assert torch.equal(alone, new), "greedy ids alone"

        torch.manual_seed(0)
        many = batch["input_ids"][:1].repeat(32, 1)
        draws = {"do_sample": True, "temperature": 2.0, "top_k": 0, "max_new_tokens": 40}
        drawn = model.generate(many, **endless, **draws)[:, many.shape[1] :]
        assert drawn.numel() == 32 * 40 and not (drawn == 1).any(), "padding was drawn"
    print(f"{folder.name}: {off[..., words].max():.1e}")


if __name__ == "__main__":
    print("transformers", transformers.__version__)
    for name in sys.argv[1:]:
        check(Path(name))
