"""`predict`'s table: rows of one source add up, the hardest comes first."""

import csv
import math

import torch

from lightning_embed.watching.predictions import write_predictions


def rows(source: list[int], nll: list[float], n_bytes: list[int]) -> dict[str, torch.Tensor]:
    return {
        "source": torch.tensor(source),
        "nll": torch.tensor(nll),
        "targets": torch.ones(len(source), dtype=torch.long),
        "n_bytes": torch.tensor(n_bytes),
    }


def test_sources_add_up_over_batches_and_the_hardest_is_first(tmp_path, capsys) -> None:
    bit = math.log(2)
    batches = [rows([0, 2], [bit, 9 * bit], [4, 2]), rows([0], [7 * bit], [4])]
    path = tmp_path / "new" / "predictions.csv"
    write_predictions(batches, ["easy.py", "unused.py", "hard, really.py"], path, whole=10)
    with open(path, newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert table == [
        ["source", "targets", "bytes", "bits_per_byte"],
        ["hard, really.py", "1", "2", "4.5000"],
        ["easy.py", "2", "8", "1.0000"],
    ]
    told = " ".join(capsys.readouterr().out.split())
    assert "2 sources, hardest hard, really.py at 4.500" in told and " of " not in told
    write_predictions(batches, ["easy.py", "unused.py", "hard, really.py"], path, whole=30)
    assert "of 10 of 30 bytes" in capsys.readouterr().out
