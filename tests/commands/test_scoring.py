"""`test` and `predict` on any files, in lines and as JSON, and against another checkpoint."""

import csv
import gzip
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from workshop import Outcome, Workshop, load, run

from lightning_embed.tokens.prepared import open_prepared

Finished = tuple[Workshop, Outcome]


@pytest.fixture(scope="module")
def shop(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The finished run's folder, copied, and a second run with another tokenizer and window."""
    first, _ = finished
    root = tmp_path_factory.mktemp("scoring")
    shutil.copytree(first.root / "done", root / "done")
    shop = Workshop(first.files, first.cache, root)
    shorter = ("--data.vocab_size", "300", "--data.max_length", "24")
    shop.fit("second", *shorter, steps=3)
    return shop


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "easy.txt").write_text("abc def gab cab. " * 40, encoding="utf-8")
    (folder / "hard.md").write_text("Zürich 1848, ÄÖÜ! " * 9, encoding="utf-8")
    return folder


def score(shop: Workshop, command: str, *more: str | Path) -> Outcome:
    where = ("--data.cache_dir", shop.cache, "--trainer.default_root_dir", shop.root)
    device = ("--trainer.accelerator", "cpu", "--trainer.precision", "32-true")
    return run(command, "--name", "done", *device, *where, *more)


def as_json(shop: Workshop, *more: str | Path) -> dict[str, Any]:
    told = score(shop, "test", "--json", *more)
    assert told.status == 0, told.err
    found: dict[str, Any] = json.loads(told.out)  # nothing else is on standard output
    return found


@pytest.mark.parametrize("overlap", [0, 8])
def test_figures_are_those_of_the_runs_own_evaluation(shop: Workshop, overlap: int) -> None:
    context = ("--data.eval_overlap", str(overlap))
    before = score(shop, "validate", *context)
    found = as_json(shop, *context)
    loss, _, perplexity, _, accuracy = before.line("held out validation loss").split()
    assert f"{found['loss']['value']:.4f}" == loss
    assert f"{found['perplexity']['value']:.1f}" == perplexity
    assert f"{found['accuracy']['value']:.3f}" == accuracy
    assert f"{found['bits_per_byte']['value']:.4f}" == before.line("bits per byte")
    assert found["bytes"] == found["held_out_bytes"] and found["eval_overlap"] == overlap
    # and the parts add up to them
    for parts in (found["by_source"]["sources"], found["by_position"]):
        nats = sum(part["loss"]["value"] * part["tokens"] for part in parts)
        assert nats / found["tokens"] == pytest.approx(found["loss"]["value"], rel=1e-9)
        assert sum(part["tokens"] for part in parts) == found["tokens"]
    for name in ("loss", "perplexity", "accuracy", "bits_per_byte"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]


def test_any_files_are_scored_whole_each_by_its_name(shop: Workshop, texts: Path) -> None:
    told = score(shop, "test", "--files", str(texts / "easy.txt"), str(texts / "*.md"))
    assert told.status == 0, told.err
    assert told.line("all of   2 files, easy.txt to hard.md")
    assert told.line("test loss") and told.line("by file") and told.line("position")
    assert "too few documents" in told.line("note")
    checkpoint = told.line("tested")
    assert checkpoint == str(shop.checkpoint("done", "best"))
    assert max(map(len, told.out.replace(checkpoint, "").splitlines())) <= 80
    hardest = told.out.splitlines().index(f"by file  {told.line('by file')}") + 1
    assert told.out.splitlines()[hardest].endswith("hard.md")


def test_files_the_model_was_trained_on_are_scored_whole_too(shop: Workshop) -> None:
    found = as_json(shop, "--files", shop.files)
    names = {part["source"] for part in found["by_source"]["sources"]}
    assert len(names) == 30 and found["interval"]["over"] == "files"
    size = sum(path.stat().st_size for path in Path(shop.files).parent.glob("*.txt"))
    assert found["bytes"] == size == found["held_out_bytes"]


def test_files_of_any_format_are_scored(shop: Workshop, tmp_path: Path) -> None:
    rows = b'{"body": "abc def gab cab"}\n{"body": "gab cab abc"}\n'
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(rows))
    (tmp_path / "left.out").write_bytes(b"no format is known by this suffix")
    found = as_json(shop, "--files", tmp_path, "--data.text_column", "body")
    (part,) = found["by_source"]["sources"]
    assert part["source"] == "rows.jsonl.gz" and found["bytes"] == len("abc def gab cabgab cab abc")


def test_how_the_settings_own_text_is_read_is_not_how_files_are(
    shop: Workshop, texts: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "rows.yaml"
    own = {"files": "own.jsonl", "format": "jsonl", "text_column": "body"}
    settings.write_text(json.dumps({"data": own}), encoding="utf-8")
    told = score(shop, "test", "--config", settings, "--files", str(texts / "easy.txt"))
    assert told.status == 0, told.err
    assert "--data.text_column body has no effect: --files is text" in told.out
    lines = ("--data.document", "line")
    (tmp_path / "two.txt").write_text("abc def\ngab cab\n", encoding="utf-8")
    found = as_json(shop, "--files", tmp_path / "two.txt", *lines)
    assert found["bytes"] == len("abc defgab cab")


def test_documents_that_training_saw_are_counted(shop: Workshop, texts: Path) -> None:
    told = score(shop, "test", "--files", shop.files, str(texts / "easy.txt"))
    (note,) = (line for line in told.out.splitlines() if "in the training text" in line)
    trained = open_prepared(shop.cache / load(shop.checkpoint("done"))["TextDataModule"]["data"])
    assert f"{trained.train.documents} of these documents" in note
    assert "in the training text" not in score(shop, "test", "--files", str(texts / "*")).out


def test_a_copy_is_announced_and_not_counted(shop: Workshop, texts: Path, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes((texts / "easy.txt").read_bytes())
    (tmp_path / "c.txt").write_bytes((texts / "hard.md").read_bytes())
    told = score(shop, "test", "--files", str(tmp_path / "*.txt"))
    assert told.line("all of   2 files, a.txt to c.txt")
    assert told.line("set aside:") == "1 exact copies"
    assert "over 2 documents" in told.out


def test_the_text_is_cut_as_by_the_run_itself(shop: Workshop, tmp_path: Path) -> None:
    shop = Workshop(shop.files, shop.cache, tmp_path)
    own = shop.fit("overlapping", "--data.eval_overlap", "8", steps=2).line("bits per byte")
    assert score(shop, "validate", "--name", "overlapping").line("bits per byte") == own
    told = score(shop, "test", "--name", "overlapping")
    assert told.line("tested").endswith("eval_overlap 8") and told.line("bits per byte") == own
    without = score(shop, "test", "--name", "overlapping", "--data.eval_overlap", "0")
    assert "eval_overlap" not in without.out and without.line("bits per byte") != own


def test_one_document_gives_no_reliable_interval(shop: Workshop, texts: Path) -> None:
    found = as_json(shop, "--files", texts / "easy.txt")
    assert found["interval"]["over"] == "windows" and found["interval"]["effective_units"] > 10
    assert found["interval"]["reliable"] is False
    assert all("bytes" not in part for part in found["by_position"])


# -- against another checkpoint --------------------------------------------------------------------


def test_two_checkpoints_with_different_tokenizers_are_compared(shop: Workshop) -> None:
    found = as_json(shop, "--against", shop.root / "second")
    other = found["against"]
    assert other["max_length"] == 24 and found["max_length"] == 32
    assert other["tokens"] > found["tokens"] and other["bytes"] == found["bytes"]
    between = other["difference"]["bits_per_byte"]
    difference = found["bits_per_byte"]["value"] - other["bits_per_byte"]["value"]
    assert between["value"] == pytest.approx(difference, rel=1e-6)
    assert between["low"] < between["value"] < between["high"]
    alone = as_json(shop, "--ckpt_path", shop.checkpoint("second", "best"), "--files", shop.files)
    both = as_json(shop, "--files", shop.files, "--against", shop.root / "second")
    assert both["against"]["loss"]["value"] == alone["loss"]["value"]


def test_a_checkpoint_is_no_better_than_itself(shop: Workshop) -> None:
    told = score(shop, "test", "--against", shop.root / "done")
    assert told.line("differ") == "+0.0000 bits per byte: no difference that this text shows"
    assert max(map(len, told.out.splitlines())) <= 80 + len(str(shop.root))


def test_an_exported_folder_is_no_better_than_what_was_exported(
    shop: Workshop, tmp_path: Path
) -> None:
    told = run("export", "--checkpoint", shop.root / "done", "--output", tmp_path / "out")
    assert told.status == 0, told.err
    found = as_json(shop, "--against", tmp_path / "out")
    assert found["against"]["checkpoint"] == str(tmp_path / "out")
    assert found["against"]["max_length"] == found["max_length"]
    assert found["against"]["loss"]["value"] == pytest.approx(found["loss"]["value"], abs=1e-6)


# -- tokens ----------------------------------------------------------------------------------------


def test_predict_writes_what_each_token_was_given(shop: Workshop, texts: Path) -> None:
    told = score(shop, "predict", "--files", str(texts / "*"))
    assert told.status == 0, told.err
    table, tokens = (
        Path(line.removeprefix("written").strip().split(": ")[0])
        for line in told.out.splitlines()
        if line.startswith("written")
    )
    with open(table, newline="", encoding="utf-8") as file:
        bits = {row["source"]: float(row["bits_per_byte"]) for row in csv.DictReader(file)}
    documents = [json.loads(line) for line in tokens.read_text(encoding="utf-8").splitlines()]
    assert {document["source"] for document in documents} == {"easy.txt", "hard.md"} == set(bits)
    for document in documents:
        nats = -math.fsum(document["log_probs"])
        size = (texts / document["source"]).stat().st_size
        assert document["bytes"] == size
        assert nats / math.log(2) / size == pytest.approx(bits[document["source"]], abs=1e-4)
        assert len(document["ids"]) == len(document["texts"]) == len(document["log_probs"])
        assert document["texts"][-1] == "</s>"
    easy = next(d for d in documents if d["source"] == "easy.txt")
    assert "".join(easy["texts"]) == (texts / "easy.txt").read_text() + "</s>"


def test_predict_of_what_was_held_out_writes_the_table_alone(shop: Workshop) -> None:
    told = score(shop, "predict")
    assert told.line("written") and "tokens.jsonl" not in told.out


def test_tokens_that_were_not_evaluated_are_null(shop: Workshop, texts: Path) -> None:
    limited = ("--trainer.limit_predict_batches", "1", "--data.tokens_per_batch", "64")
    told = score(shop, "predict", "--files", str(texts / "easy.txt"), *limited)
    (path,) = (line for line in told.out.splitlines() if ".tokens.jsonl: " in line)
    name = path.removeprefix("written").strip().partition(": ")[0]
    (document,) = map(json.loads, Path(name).read_text(encoding="utf-8").splitlines())
    found = document["log_probs"]
    assert 0 < len([x for x in found if x is not None]) <= 64 < len(found)


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--files", "nowhere/*.txt"), ["--files 'nowhere/*.txt'", "no such file"]),
        (("--files", "{empty}"), ["no usable document", "--files"]),
        (("--files", "{text}", "--data.files", "{text}"), ["--files", "leave out --data.files"]),
        (("--files", "{text}", "--data.tokenizer", "x.json"), ["leave out --data.tokenizer"]),
        (("--against", "nowhere"), ["no checkpoint at nowhere"]),
        (("--against", "{text}"), ["easy.txt"]),
        (("--against", "{later}"), ["later version"]),
        (("--against", "best", "--trainer.limit_test_batches", "1"), ["limit_test_batches"]),
        (("--against", "best", "--data.eval_overlap", "25"), ["--data.eval_overlap"]),
    ],
)
def test_mistakes_are_told_in_one_line(
    shop: Workshop, texts: Path, tmp_path: Path, given: tuple[str, ...], words: list[str]
) -> None:
    later = load(shop.checkpoint("done", "best")) | {"lightning_embed_format": 99}
    torch.save(later, tmp_path / "later.ckpt")
    (tmp_path / "empty.txt").write_text("")
    paths = {"text": texts / "easy.txt", "empty": tmp_path / "empty.txt"}
    paths["later"] = tmp_path / "later.ckpt"
    told = score(shop, "test", *(word.format(**paths) for word in given))
    line = told.error_line()
    assert all(word in line for word in words), line
