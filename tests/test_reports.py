"""What users of other trainers reported on public trackers, tried here.

Each row is named repository#number. docs/reports.md tells in words what was reported and what comes
of it; a test keeps both lists the same.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from workshop import ROOT, Outcome, Workshop, assert_same_weights, load, run, write_corpus

from lightning_embed.sources.files import WHOLE_FILES, FilesCorpus
from lightning_embed.sources.finding import find_files
from lightning_embed.sources.formats import texts_of
from lightning_embed.sources.source import About
from lightning_embed.tokens.tokenizer import TextTokenizer

WORDS = " ".join(f"{n * 7919 % 997} apples and pears" for n in range(300))
ONE_STEP = ("--name", "r", "--trainer.max_steps", "1")


# Text that is kept as it is --------------------------------------------------------------------

KEPT: dict[str, tuple[str, bytes, list[str]]] = {
    "datasets#622": ("t.txt", b"one\rtwo\r\nthree\n", ["one\rtwo\r\nthree\n"]),
    "datasets#1989": (
        "t.csv",
        b'id,text\r\n1,"a ^M\rb\nc"\r\n2,"said ""d"", e"\r\n',
        ["a ^M\rb\nc", 'said "d", e'],
    ),
    "datasets#8241": ("t.jsonl", b'\xef\xbb\xbf{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
    "datasets#4467": ("t.csv", b"text\nnull\nNA\n007\n", ["null", "NA", "007"]),
    "datasets#836": ("t.csv", b"text\n" + b"x" * 3_000_000 + b"\n", ["x" * 3_000_000]),
    "datasets#7468": ("[D_DATA]/t.txt", b"a", ["a"]),
}


@pytest.mark.parametrize("report", KEPT)
def test_text_is_kept(report: str, tmp_path: Path) -> None:
    name, content, texts = KEPT[report]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    (found,) = find_files([str(path)])
    read = texts_of(found, str(found), "text", WHOLE_FILES)
    assert [text.piece.text for text in read] == texts


# Text that is refused, in one line that says where -----------------------------------------------

UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "tokenizers#282": ("t.txt", WORDS.encode("utf-16"), "not UTF-8 at byte 0"),
    "tokenizers#192": ("t.txt", b"a" * 500 + b"\xd1 " + WORDS.encode(), "not UTF-8 at byte 500"),
    "datasets#4107": ("t.jsonl", b'{"text": "a"}{"text": "b"}\n', "t.jsonl:1 does not parse"),
    "datasets#4491": ("t.jsonl", b'{"text": null}\n{"text": "b"}\n', "t.jsonl:1: column 'text' is"),
    "datasets#743": ("t.csv", b"title\ttext\na\tb\n", r"name one of 'title\ttext'"),
    "litgpt#1413": ("folder/t.png", b"a", "is a folder without a file of a known format (of 1"),
}


@pytest.mark.parametrize("report", UNREADABLE)
def test_text_that_is_refused(report: str, tmp_path: Path) -> None:
    name, content, wanted = UNREADABLE[report]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    given = path.parent if path.parent != tmp_path else path
    shop = Workshop(str(given), tmp_path / "cache", tmp_path / "runs")
    assert wanted in shop.run("fit").error_line()
    assert shop.runs() == []


# Small and odd texts that train ------------------------------------------------------------------

TRAINED: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    # files, further arguments, what the screen must show
    "litgpt#1450": (
        {f"{n}.txt": f"This is sentence {n} of twenty-five." for n in range(25)},
        (),
        r"25 files",
    ),
    "nanoGPT#476": ({"t.md": "# Title\n" + 11 * WORDS}, (), r"t\.md, 2 documents, 0\.1 MB"),
    "nanoGPT#421": (
        {"t.txt": "".join(map(chr, range(33, 160))) * 20},
        ("--data.tokenizer", "characters", "--data.vocab_size", "null"),
        r"vocabulary 131;",
    ),
    "transformers#18304": (
        {"t.txt": WORDS[:400]},
        ("--data.max_length", "512", "--data.tokens_per_batch", "512"),
        r"finished 1 steps",
    ),
    "pytorch-lightning#139": (
        {"t.txt": WORDS[:400]},
        ("--data.tokens_per_batch", "8192", "--trainer.max_epochs", "1"),
        r"finished 1 steps",
    ),
    "tokenizers#670": ({"t.txt": WORDS}, ("--data.vocab_size", "290"), r"vocabulary 290;"),
    "tokenizers#903": (
        {"t.txt": WORDS},
        ("--data.vocab_size", "50000"),
        r"the text supports no more than that; asked 50,000",
    ),
    "datasets#6691": (
        {"t.tsv": "id\ttext\n" + "".join(f"{n}\trow {n}\n" for n in range(90))},
        (),
        r"t\.tsv, 9\d documents",
    ),
    "datasets#3227": (
        {"t.json": json.dumps([{"text": WORDS}])},
        (),
        r"t\.json, 2 documents",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("report", TRAINED)
def test_small_and_odd_texts_train(report: str, tmp_path: Path) -> None:
    files, arguments, shown = TRAINED[report]
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    pattern = str(tmp_path / ("*" + Path(name).suffix))
    told = Workshop(pattern, tmp_path / "cache", tmp_path / "runs").run(
        "fit", *ONE_STEP, *arguments
    )
    assert told.status == 0 and not told.err, told.err
    assert re.search(shown, told.out), told.out


# Settings ----------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, tuple[str, ...], str]] = {
    # command, arguments, what the one line must say
    "tokenizers#886": ("fit", ("--data.vocab_size", "100"), "--data.vocab_size 100 is too small"),
    "litgpt#241": ("fit", ("--trainer.precision", "bf16-tru"), "'bf16-true'"),
    "pytorch-lightning#7143": ("fit", ("--trainer.fast_dev_run", "true"), "--trainer.max_steps 1"),
    "pytorch-lightning#2311": ("fit", ("--trainer.overfit_batches", "0.01"), "--data.files"),
    "pytorch-lightning#8818": (
        "fit",
        ("--trainer.max_epochs", "-1", "--trainer.max_steps", "-1"),
        "give --trainer.max_steps",
    ),
    "pytorch-lightning#21028": (
        "fit",
        ("--seed_everything=-1",),
        "at least 0 and at most 4294967295, not -1",
    ),
}


@pytest.mark.parametrize("report", REFUSED)
def test_what_cannot_be_is_refused(report: str, workshop: Workshop) -> None:
    command, arguments, wanted = REFUSED[report]
    assert wanted in workshop.run(command, *arguments).error_line()
    assert workshop.runs() == []


EVERY_TWO = ("--trainer.val_check_interval", "2")
STOP_EARLY = (*EVERY_TWO, "--early_stopping.patience", "1", "--early_stopping.min_delta", "99")

# With the shared corpus an epoch is 9 steps.
RUNS: dict[str, tuple[tuple[str, ...], str]] = {
    # arguments, what the screen must show
    "pytorch-lightning#9435": (
        ("--trainer.max_steps", "3", "--trainer.val_check_interval", "1"),
        r"(?s)validation at step 1:.*validation at step 2:.*validation at step 3:",
    ),
    "pytorch-lightning#20468": (
        (
            *("--trainer.max_epochs", "2", "--trainer.val_check_interval", "12"),
            *("--trainer.check_val_every_n_epoch", "null"),
        ),
        r"validation at step 12:",
    ),
    "pytorch-lightning#4154": (
        ("--trainer.max_steps", "40", "--trainer.min_steps", "10", *STOP_EARLY),
        r"finished 10 steps",
    ),
    "pytorch-lightning#15708": (
        ("--trainer.max_epochs", "6", "--trainer.min_epochs", "2", *STOP_EARLY),
        r"finished 18 steps",
    ),
    "pytorch-lightning#19684": (
        ("--trainer.max_steps", "3", "--trainer.accumulate_grad_batches", "2"),
        r"finished 3 steps",
    ),
    "pytorch-lightning#4450": (
        ("--trainer.max_steps", "4", "--data.num_workers", "2", *EVERY_TWO),
        r"(?s)validation at step 2:.*finished 4 steps",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("report", RUNS)
def test_a_run_does_what_was_asked(report: str, workshop: Workshop) -> None:
    arguments, shown = RUNS[report]
    told = workshop.fit("r", *arguments)
    assert not told.err, told.err
    assert re.search(shown, told.out), told.out


# What needs more than one command ----------------------------------------------------------------


class Bench(NamedTuple):
    """What a row works with."""

    shop: Workshop
    done: Workshop  # has the run `done` of 4 epochs, to look at
    tmp_path: Path
    monkeypatch: pytest.MonkeyPatch

    def generate(self, *arguments: str, run_of: Workshop | None = None) -> Outcome:
        folder = (run_of or self.done).root / ("r" if run_of else "done")
        return run("generate", "--checkpoint", folder, "--max_new_tokens", "5", *arguments)


def files_by_two_patterns(bench: Bench) -> None:
    write_corpus(bench.tmp_path / "data", documents=3)
    about = About()
    patterns = (f"{bench.tmp_path}/data/*.txt", f"{bench.tmp_path}/**/*.txt")
    assert len(list(FilesCorpus(patterns).documents(about))) == 4  # one is cut in two
    assert about.counts["files"] == 3 and not about.counts["exact copies"]


def links_and_loops(bench: Bench) -> None:
    folder = bench.tmp_path / "data"
    write_corpus(folder, documents=3)
    (folder / "above").symlink_to(folder, target_is_directory=True)
    (folder / "link.txt").symlink_to(folder / "doc00.txt")
    found = find_files([f"{folder}/**/*.txt"])
    assert found == [folder / f"doc{n:02}.txt" for n in range(3)]
    assert find_files([f"{folder}/link.txt"]) == [folder / "link.txt"]


def special_tokens_in_text(bench: Bench) -> None:
    tokenizer = TextTokenizer.train(["<s> a <pad> b </s> c <unk> d"], vocab_size=300)
    ids = tokenizer.encode("a <pad> </s><s> <unk>")
    assert min(ids) > 3 and tokenizer.decode(ids) == "a <pad> </s><s> <unk>"


def runs_of_spaces(bench: Bench) -> None:
    tokenizer = TextTokenizer.train([WORDS, "if x:\n        y"], vocab_size=300)
    for n in range(1, 100):
        text = f" hello{' ' * n}world\t\n" + " " * n
        assert tokenizer.decode(tokenizer.encode(text)) == text


def composed_and_decomposed(bench: Bench) -> None:
    tokenizer = TextTokenizer.train([WORDS], vocab_size=300)
    for text in (
        "123 fdsafsfa ~_! ./",
        "caf\u00e9 cafe\u0301 \ufb01 \u2126 \U0001f600",
        "\ufeff\0\r",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def text_with_unknown_characters(bench: Bench) -> None:
    TextTokenizer.characters(["abc def"]).save(bench.tmp_path / "abc.json")
    (bench.tmp_path / "t.txt").write_text("абв abc def " * 50, encoding="utf-8")
    shop = Workshop(str(bench.tmp_path / "t.txt"), bench.tmp_path / "cache", bench.tmp_path)
    tokenizer = ("--data.tokenizer", str(bench.tmp_path / "abc.json"), "--data.vocab_size", "null")
    told = shop.fit("r", "--trainer.max_steps", "1", *tokenizer)
    assert told.line("unknown to the tokenizer:") == "135 training and 15 held-out tokens"


def prompt_with_unknown_characters(bench: Bench) -> None:
    characters = ("--data.tokenizer", "characters", "--data.vocab_size", "null")
    bench.shop.fit("r", *characters, steps=1)
    found = bench.generate("--prompt", "abc \u03a9?", run_of=bench.shop)
    assert found.status == 0 and found.out.startswith("abc \u03a9?")
    assert found.err == "note     2 of the prompt's tokens are unknown to the model's tokenizer\n"
    assert not bench.generate("--prompt", "abc", run_of=bench.shop).err


def prompt_beyond_the_window(bench: Bench) -> None:
    found = bench.generate("--prompt", "x " * 200)
    assert found.status == 0 and "tokens the model sees the last 32\n" in found.err
    assert found.out.startswith("x " * 200)
    assert not bench.generate("--prompt", "x").err


def fewest_and_most_likely_tokens(bench: Bench) -> None:
    greedy = bench.generate("--temperature", "0")
    assert greedy.out == bench.generate("--top_k", "1").out
    everything = bench.generate("--top_k", "0")
    assert everything.status == 0 and everything.out == bench.generate("--top_k", "100000").out


def evaluating_a_part(bench: Bench) -> None:
    for option, value in (("overfit_batches", "1"), ("fast_dev_run", "true")):
        for command in ("validate", "test", "predict"):
            told = bench.done.run(command, "--name", "done", f"--trainer.{option}", value)
            assert f"--trainer.{option} is not for evaluation" in told.error_line()


def evaluating_in_another_shape(bench: Bench) -> None:
    told = bench.done.run("validate", "--name", "done", "--model.n_layers", "1")
    assert "was trained with 2" in told.error_line()


def files_of_settings_and_flags_in_any_order(bench: Bench) -> None:
    config = bench.tmp_path / "c.yaml"
    config.write_text("model:\n  d_model: 64\n", encoding="utf-8")
    flag, file = ("--model.d_model", "32"), ("--config", str(config))
    for order in ((*flag, *file), (*file, *flag), (*flag, f"--config={config}")):
        told = run("fit", *order, "--print_config")
        assert yaml.safe_load(told.out)["model"]["d_model"] == 32, order
    for text, wanted in (("", "holds no settings"), ("model:\n", "model is empty")):
        config.write_text(text, encoding="utf-8")
        assert wanted in run("fit", *file).error_line()


def files_of_settings_before_the_command(bench: Bench) -> None:
    assert "train.py --help" in run("--config", "c.yaml", "fit").error_line()


def no_validation_and_the_best(bench: Bench) -> None:
    bench.shop.fit("r", "--trainer.limit_val_batches", "0", steps=1)
    for told in (bench.generate(run_of=bench.shop), bench.shop.run("validate", "--name", "r")):
        said = told.out + told.err
        assert told.status == 0 and "no validation has chosen a best checkpoint yet" in said


def accumulation_beyond_an_epoch(bench: Bench) -> None:
    epoch = ("--trainer.max_epochs", "1")
    plain = bench.shop.fit("plain", *epoch)
    many = bench.shop.fit("many", *epoch, "--trainer.accumulate_grad_batches", "10")
    assert [x.line("finished").split()[0] for x in (plain, many)] == ["9", "9"]
    one, other = (float(x.line("held out validation loss").split()[0]) for x in (plain, many))
    assert one == pytest.approx(other, abs=1e-3)


def environment_variables_of_the_trainer(bench: Bench) -> None:
    for name in ("PL_TRAINER_MAX_STEPS", "PL_FIT__TRAINER__MAX_STEPS"):
        bench.monkeypatch.setenv(name, "7")
    assert bench.shop.fit("r", steps=1).line("finished").startswith("1 steps")


def a_broken_link_for_last(bench: Bench) -> None:
    bench.shop.fit("r", steps=1)
    last = bench.shop.checkpoint("r")
    last.unlink()
    last.symlink_to("nowhere.ckpt")
    told = bench.shop.fit("r", "--ckpt_path", "last", steps=2)
    assert "passed over" in told.line("warning") and "best.ckpt: step 1" in told.line("resume")


def a_path_without_a_checkpoint(bench: Bench) -> None:
    told = bench.shop.run("fit", "--ckpt_path", "epoch=0.ckpt")
    assert "no checkpoint at epoch=0.ckpt" in told.error_line()
    assert "path is empty" in bench.shop.run("fit", "--ckpt_path", "").error_line()
    assert "path is empty" in run("generate", "--checkpoint", "").error_line()


def last_from_another_folder(bench: Bench) -> None:
    bench.shop.fit("r", steps=1)
    bench.monkeypatch.chdir(bench.tmp_path)
    assert bench.shop.fit("r", "--ckpt_path", "last", steps=2).line("finished")[0] == "1"


def resumed_with_another_tokenizer(bench: Bench) -> None:
    bench.shop.fit("r", steps=1)
    other = ("--data.tokenizer", "characters", "--data.vocab_size", "null")
    told = bench.shop.run("fit", "--name", "r", "--ckpt_path", "last", *other)
    assert "give the same --data.* settings" in told.error_line()


def resumed_in_other_batches(bench: Bench) -> None:
    bench.shop.fit("r", steps=2)
    again = ("--name", "r", "--ckpt_path", "last", "--trainer.max_steps", "4")
    told = bench.shop.run("fit", *again, "--data.tokens_per_batch", "512")
    assert "--data.tokens_per_batch is 512" in told.error_line()
    # The same batch in other pieces is allowed, and the steps keep their number.
    told = bench.shop.run("fit", *again, "--trainer.accumulate_grad_batches", "2")
    assert told.status == 0 and told.line("finished").startswith("2 steps")


def resumed_past_the_schedule(bench: Bench) -> None:
    bench.shop.fit("r", steps=2)
    told = bench.shop.fit("r", "--ckpt_path", "last", "--model.lr", "0.001", steps=4)
    assert "is over at step 2" in told.line("schedule")
    assert "model.lr 0.003 -> 0.001" in told.line("changed")


def nothing_left(bench: Bench) -> None:
    bench.shop.fit("r", steps=2)
    told = bench.shop.fit("r", "--ckpt_path", "last", steps=2)
    assert "nothing was left to train: the run is at step 2" in told.line("note")


OFTEN = ("--trainer.log_every_n_steps", "1")


@pytest.fixture(scope="module")
def in_pieces(
    corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workshop, list[Outcome]]:
    """`straight`: 12 steps, and `r`: the same stopped within the first epoch of 9 steps, and at
    its end. Not to be gone on with."""
    shop = Workshop(corpus, cache, tmp_path_factory.mktemp("in_pieces"))
    whole = (*OFTEN, "--model.schedule_steps", "12")
    shop.fit("straight", *whole, steps=12)
    first = shop.fit("r", *whole, steps=4)
    more = [shop.fit("r", "--ckpt_path", "last", *OFTEN, steps=steps) for steps in (9, 12)]
    return shop, [first, *more]


def resumed_within_an_epoch(pieces: Workshop, told: list[Outcome]) -> None:
    assert "step 4, epoch 0" in told[1].line("resume")
    assert_same_weights(pieces.checkpoint("straight"), pieces.checkpoint("r"))


def resumed_at_the_end_of_an_epoch(pieces: Workshop, told: list[Outcome]) -> None:
    assert "step 9, epoch 1" in told[2].line("resume")
    assert [outcome.line("finished").split()[0] for outcome in told] == ["4", "5", "3"]
    assert load(pieces.checkpoint("r"))["global_step"] == 12


def events_of(shop: Workshop, name: str, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(shop.root / name)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def learning_rate_of_a_resumed_run(pieces: Workshop, told: list[Outcome]) -> None:
    tag = "optim/lr_adamw"
    straight, resumed = (dict(events_of(pieces, name, tag)) for name in ("straight", "r"))
    assert {7, 8, 9, 12} <= resumed.keys() and len({resumed[step] for step in (8, 9, 12)}) == 3
    assert resumed == {step: straight[step] for step in resumed}


def curves_of_a_resumed_run(pieces: Workshop, told: list[Outcome]) -> None:
    straight, resumed = (events_of(pieces, name, "loss/train") for name in ("straight", "r"))
    assert resumed == straight and [step for step, _ in resumed] == list(range(1, 13))


RESUMED: dict[str, Callable[[Workshop, list[Outcome]], None]] = {
    "pytorch-lightning#5325": resumed_within_an_epoch,
    "pytorch-lightning#19403": resumed_at_the_end_of_an_epoch,
    "pytorch-lightning#4655": learning_rate_of_a_resumed_run,
    "tensorboard#6782": curves_of_a_resumed_run,
}


@pytest.mark.slow
@pytest.mark.parametrize("report", RESUMED)
def test_a_resumed_run_is_the_run_that_was_not_stopped(
    report: str, in_pieces: tuple[Workshop, list[Outcome]]
) -> None:
    RESUMED[report](*in_pieces)


SITUATIONS: dict[str, Callable[[Bench], None]] = {
    "datasets#3309": files_by_two_patterns,
    "datasets#6764": links_and_loops,
    "transformers#26468": special_tokens_in_text,
    "tokenizers#817": runs_of_spaces,
    "tokenizers#830": composed_and_decomposed,
    "tokenizers#517": text_with_unknown_characters,
    "nanoGPT#434": prompt_with_unknown_characters,
    "litgpt#43": prompt_beyond_the_window,
    "litgpt#1593": fewest_and_most_likely_tokens,
    "pytorch-lightning#12668": evaluating_a_part,
    "pytorch-lightning#20801": evaluating_in_another_shape,
    "pytorch-lightning#17533": files_of_settings_and_flags_in_any_order,
    "pytorch-lightning#19714": files_of_settings_before_the_command,
    "pytorch-lightning#8900": no_validation_and_the_best,
    "pytorch-lightning#21808": accumulation_beyond_an_epoch,
    "pytorch-lightning#18874": environment_variables_of_the_trainer,
    "pytorch-lightning#19251": a_broken_link_for_last,
    "pytorch-lightning#7072": a_path_without_a_checkpoint,
    "pytorch-lightning#20192": last_from_another_folder,
    "nanoGPT#169": resumed_with_another_tokenizer,
    "transformers#43708": resumed_in_other_batches,
    "transformers#18070": resumed_past_the_schedule,
    "transformers#26413": nothing_left,
}


@pytest.mark.parametrize("report", SITUATIONS)
def test_a_situation(
    report: str,
    workshop: Workshop,
    finished: tuple[Workshop, Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    SITUATIONS[report](Bench(workshop, finished[0], tmp_path, monkeypatch))


def test_the_page_tells_of_the_same_reports() -> None:
    page = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| ([\w-]+#\d+) ", page, re.MULTILINE)
    tables = (KEPT, UNREADABLE, TRAINED, REFUSED, RUNS, RESUMED, SITUATIONS)
    tried = [report for table in tables for report in table]
    assert len(tried) == len(set(tried)) == 60
    assert sorted(told) == sorted(tried)
