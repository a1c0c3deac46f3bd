"""Hugging Face's Trainer with a Llama, as a whole training program: eager.

Started by `peers.py` with the peers' Python: needs torch, transformers, accelerate and numpy, and
nothing of this project. Rows are windows of a file of ids, padded to the longest of their batch;
attention masks and shifted labels are given, so that it computes exactly the real targets' loss.
"""

from collections import deque
from typing import Any

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from turns import Turns, parameter_count, settings

PAD, IGNORE = 1, -100


class Windows(torch.utils.data.Dataset):
    """Ids of each window and the one after it; `starts` and `lengths` are files of arrays."""

    def __init__(self, tokens: str, starts: str, lengths: str) -> None:
        self.tokens = np.memmap(tokens, dtype=np.uint16, mode="r")
        self.starts, self.lengths = np.load(starts), np.load(lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> dict[str, Any]:
        start, length = int(self.starts[number]), int(self.lengths[number])
        piece = torch.from_numpy(self.tokens[start : start + length + 1].astype(np.int64))
        return {"input_ids": piece[:-1], "labels": piece[1:], "length": length}


class Collate:
    """Dynamic padding, and how many real targets each batch has, in the order they are asked for
    (the loader is a batch ahead of the loop)."""

    def __init__(self) -> None:
        self.targets: deque[int] = deque()

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        def padded(key: str, value: int) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence(
                [row[key] for row in rows], batch_first=True, padding_value=value
            )

        ids, labels = padded("input_ids", PAD), padded("labels", IGNORE)
        real = labels != IGNORE
        self.targets.append(int(real.sum()))
        # `shift_labels` are labels that need no shifting
        return {
            "input_ids": ids,
            "attention_mask": real.long(),
            "labels": labels,
            "shift_labels": labels,
        }


class TakeTurns(TrainerCallback):
    def __init__(self, turns: Turns, collate: Collate) -> None:
        self.turns, self.collate = turns, collate

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.turns(self.collate.targets.popleft())


def main() -> None:
    asked = settings()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**asked["model"], tie_word_embeddings=True))
    collate = Collate()
    turns = Turns(asked["warm"], asked["steps"], {"parameters": parameter_count(model)})
    arguments = TrainingArguments(
        output_dir=asked["folder"],
        per_device_train_batch_size=asked["rows"],
        max_steps=10**9,
        bf16=asked["format"] == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        learning_rate=1e-3,
        max_grad_norm=1.0,
        train_sampling_strategy=asked["sampling"],
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=False,
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=Windows(asked["tokens"], asked["starts"], asked["lengths"]),
        callbacks=[TakeTurns(turns, collate)],
    )
    trainer.train()


if __name__ == "__main__":
    main()
