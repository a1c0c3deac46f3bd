"""Every command printed at any ending of a run can be pasted, and a run that goes on trains.

All names have spaces: of the run, its root, the configuration, the text and the tokenizer.
"""

import shlex
from pathlib import Path

import pytest
import yaml
from workshop import TINY, Outcome, load, run, write_corpus

PRINTED = ("go on", "more", "own text", "watch")
INTERVAL = ("--trainer.val_check_interval", "2", "--trainer.check_val_every_n_epoch", "null")


SIX = ("--trainer.max_steps", "6")
LONGER = ("--trainer.max_steps", "4", "--model.schedule_steps", "4")


def stop_with(callback: str) -> tuple[str, str]:
    return f"--trainer.callbacks+=workshop.{callback}", "--trainer.callbacks.step=4"


class Desk:
    """A working directory with a configuration, texts and notes."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.root, self.config = Path("my runs"), Path("my conf.yaml")
        write_corpus(folder / "some text")
        write_corpus(folder / "notes", 4)
        for file in (folder / "notes").iterdir():
            file.rename(file.with_suffix(".md"))
        settings: dict[str, dict[str, object]] = {"data": {}, "trainer": {}}
        settings["data"]["files"] = "some text/*.txt"
        settings["data"]["cache_dir"] = str(cache)
        settings["trainer"]["default_root_dir"] = str(self.root)
        for flag, value in zip(TINY[::2], TINY[1::2], strict=True):
            section, name = flag.removeprefix("--").split(".")
            settings.setdefault(section, {})[name] = yaml.safe_load(value)
        self.config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def fit(self, *more: str | Path) -> Outcome:
        return run("fit", "--config", self.config, "--name", "a run", *more)

    def step(self, name: str = "a run") -> int:
        step: int = load(self.root / name / "checkpoints" / "last.ckpt")["global_step"]
        return step


@pytest.fixture
def desk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, cache)


def printed(told: Outcome) -> dict[str, list[str]]:
    """The commands a run has printed, by their labels, without the program's name."""
    found: dict[str, list[str]] = {}
    for line in told.out.splitlines():
        label = line[:9].strip()
        if label in PRINTED:
            words = shlex.split(line[9:])
            at = next((i for i, word in enumerate(words) if word in ("fit", "generate")), 1)
            found[label] = words[at:]
    return found


ENDINGS = {  # options of the run, what the printed command is helped with, least steps it adds
    "max_steps": (("--trainer.max_steps", "3"), (), 3),
    "max_epochs": (("--trainer.max_epochs", "1"), (), 5),
    "both, epochs": (("--trainer.max_epochs", "1", "--trainer.max_steps", "500"), (), 5),
    "both, steps": (("--trainer.max_epochs", "9", "--trainer.max_steps", "3"), (), 3),
    "max_time": (
        ("--trainer.max_time", "00:00:00:01", "--trainer.max_steps", "100000"),
        ("--checkpoints.every_n_steps", "3", "--trainer.callbacks+=workshop.HaltAfter"),
        3,
    ),
    "early stopping": (
        ("--early_stopping.patience", "2", "--early_stopping.min_delta", "99", *INTERVAL),
        (),
        4,  # one more validation would be 2
    ),
    "early stopping, good enough": (
        ("--early_stopping.stopping_threshold", "99", "--trainer.max_steps", "12", *INTERVAL),
        (),
        4,
    ),
    **{
        name: (
            (*SIX, *stop_with("SignalAt"), f"--trainer.callbacks.signal_name={name}"),
            (),
            2,
        )
        for name in ("SIGINT", "SIGTERM", "SIGHUP")
    },
    "exception": (
        (*SIX, *stop_with("FailAt")),
        ("--trainer.callbacks", "null"),
        3,
    ),
}


OFTEN_SEEN = ("max_steps", "max_epochs", "SIGINT", "early stopping")  # the others are slow


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(ending, marks=[] if ending in OFTEN_SEEN else [pytest.mark.slow])
        for ending in ENDINGS
    ],
)
def test_each_printed_command_runs_as_printed(desk: Desk, not_nohup: None, ending: str) -> None:
    options, help_, more = ENDINGS[ending]
    told = desk.fit(*options)
    assert "Traceback" not in told.err
    commands = printed(told)
    interrupted = ending.startswith("SIG") or ending == "exception"
    assert commands.keys() == ({"go on"} if interrupted else set(PRINTED))
    before = desk.step()
    again = run(*commands["go on"], *help_)
    assert again.status == 0, again.out + again.err
    assert "nothing was left to train" not in again.out
    assert desk.step() >= before + more
    assert sorted(path.name for path in desk.root.iterdir()) == ["a run"]
    if "more" in commands:
        found = run(*commands["more"], "--max_new_tokens", "2")
        assert found.status == 0 and found.out.startswith("def "), found.err
    if ending == "max_steps":
        assert commands["watch"] == ["--logdir", str(desk.root)]
        own = run(*commands["own text"], "--trainer.max_steps", "2")
        assert own.status == 0, own.err
        assert "4 files" in own.line("corpus") and desk.step("mine") == 2


def test_commands_of_a_run_that_was_moved_name_its_new_place(desk: Desk) -> None:
    assert desk.fit("--trainer.max_steps", "2").status == 0
    moved = Path("an archive") / "renamed run"
    moved.parent.mkdir()
    (desk.root / "a run").rename(moved)
    told = run("fit", "--config", moved / "config.yaml", "--ckpt_path", moved, *LONGER)
    assert told.status == 0, told.err
    commands = printed(told)
    again = run(*commands["go on"])
    assert again.status == 0, again.err
    assert load(moved / "checkpoints" / "last.ckpt")["global_step"] == 8
    assert run(*commands["more"], "--max_new_tokens", "2").status == 0
    assert not desk.root.exists() or list(desk.root.iterdir()) == []


def test_each_configuration_is_named(desk: Desk) -> None:
    Path("and more.yaml").write_text("model:\n  d_model: 16\n", encoding="utf-8")
    told = desk.fit("--config", "and more.yaml", "--trainer.max_steps", "1")
    own = printed(told)["own text"]
    assert own[1:5] == ["--config", "my conf.yaml", "--config", "and more.yaml"]


def test_a_tokenizer_file_is_named_so_that_it_can_be_pasted(desk: Desk) -> None:
    text = ("--files", "some text/*.txt", "--vocab_size", "300")
    told = run("tokenizer", *text, "--output", "my tokens.json")
    words = shlex.split(told.line("written").partition("train with ")[2])
    assert words == ["--data.tokenizer", "my tokens.json"]
    fit = desk.fit(*words, "--trainer.max_steps", "2")
    assert fit.status == 0, fit.err
    assert run(*printed(fit)["go on"]).status == 0
