"""The front door: what `--help` costs and lists, what a mistake, a bug and a signal look like."""

import errno
import inspect
import shlex
import signal
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from made_runs import make_run
from workshop import ROOT, Workshop, run, run_apart

import lightning_embed
from lightning_embed.cli import COMMANDS, main
from lightning_embed.errors import TrainingStopped, UserError
from lightning_embed.model.decoder import DecoderLM

# -- the table of commands -------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_listed_with_the_first_sentence_of_its_docstring(command: str) -> None:
    module, _, name = COMMANDS[command].partition(":")
    docstring = inspect.getdoc(getattr(import_module(module), name)) or ""
    sentence = docstring.splitlines()[0].split(". ")[0].rstrip(".")
    assert len(sentence) > 10
    assert f"  {command:<11} {sentence}" in run("--help").out.splitlines()


@pytest.mark.parametrize("words", [["--help"], ["fti"], ["generate", "--help"], ["fit", "--help"]])
def test_help_names_the_program_as_it_was_started(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "my bin" / "lightning-embed")])
    told = run(*words)
    assert f"'{tmp_path}/my bin/lightning-embed' " in told.out + told.err
    assert "train.py" not in told.out + told.err


def test_help_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "lightning_embed", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    lines = [line.rpartition("|")[2].strip() for line in told.stderr.splitlines()]
    imported = {name.partition(".")[0] for name in lines}
    assert "lightning_embed" in imported and told.stdout.startswith("usage:")
    assert not imported & {"torch", "lightning", "datasets", "tokenizers", "jsonargparse"}


@pytest.mark.parametrize(("command", "near"), [("fti", "fit"), ("generat", "generate")])
def test_an_unknown_command_names_the_nearest(command: str, near: str) -> None:
    told = run(command)
    assert f"did you mean {near}?" in told.error_line()


# -- mistakes, bugs --------------------------------------------------------------------------


def fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`consolidate` does nothing but raise this."""

    def fail(args: list[str]) -> None:
        raise error

    module, _, name = COMMANDS["consolidate"].partition(":")
    monkeypatch.setattr(f"{module}.{name}", fail)


@pytest.mark.parametrize(
    "error",
    [
        UserError("--data.max_length 1:\n  give 2"),
        TrainingStopped("step 5"),
        FileNotFoundError("no such file"),
        OSError(errno.ENOSPC, "No space left on device"),
        MisconfigurationException("no GPU"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_user_can_mend_is_one_line_and_a_traceback_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fails(monkeypatch, error)
    assert run("consolidate").error_line() == " ".join(str(error).split())
    monkeypatch.setenv("LIGHTNING_EMBED_TRACEBACK", "1")
    with pytest.raises(type(error)):
        run("consolidate")


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError, AssertionError])
def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    fails(monkeypatch, error("ours"))
    with pytest.raises(error, match="ours"):
        run("consolidate")


def test_a_bare_value_error_while_training_is_a_bug(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only while objects are built is a library's refusal, a ValueError too, the user's to mend."""

    def loss(self: DecoderLM, *args: object, **kwargs: object) -> None:
        list(zip([1], [], strict=True))

    monkeypatch.setattr(DecoderLM, "loss", loss)
    with pytest.raises(ValueError, match=r"^zip\(\)") as caught:
        workshop.run("fit", "--trainer.max_steps", "1")
    assert not isinstance(caught.value, UserError)


def test_a_bug_says_where_to_report_it_and_with_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: list[str]) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("lightning_embed.commands.consolidate.consolidate", fail)
    with pytest.raises(KeyError):
        main(["consolidate"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bug: this is a fault of lightning_embed")
    for attached in ("traceback", "command line", "config.yaml"):
        assert attached in line
    asked = shlex.split(line.partition("what `")[2].partition("`")[0])
    assert run(*asked[asked.index("train.py") + 1 :]) == run("version")


@pytest.mark.parametrize(
    "words",
    [("--version",), ("-V",), ("version",), ("fit", "--version"), ("generate", "--version")],
)
def test_versions_are_those_that_a_report_needs(words: list[str]) -> None:
    told = run(*words)
    assert told.status == 0 and told.err == ""
    assert told.line("lightning_embed") == lightning_embed.__version__
    assert told.line("torch") == version("torch")
    assert told.line("lightning ") == version("lightning")
    assert "cores" in told.line("processor")
    assert told.line("gpu")


def test_ctrl_c_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, KeyboardInterrupt())
    assert run("consolidate") == (130, "", "")


def test_a_mistake_ends_the_process_with_a_status_and_one_line(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    told = run_apart("runs", tmp_path, "--sort", "nonsense")  # the command that starts soonest
    assert told.status == 1
    assert "nonsense" in told.error_line()


# -- signals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_signal_while_text_is_prepared_ends_the_program_tidied_up(
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    not_nohup: None,
    name: str,
) -> None:
    def told(*args: object, **kwargs: object) -> None:
        signal.raise_signal(signal.Signals[name])

    before = signal.getsignal(signal.Signals[name])
    monkeypatch.setattr("lightning_embed.tokens.encoding._encoded", told)
    cache = tmp_path / "cache"
    found = workshop.run("fit", "--data.cache_dir", cache)
    assert found.status == 128 + signal.Signals[name]
    assert found.err == "" and [path.suffix for path in cache.iterdir()] == [".work"]
    assert found.line("stopped") == f"by {name} while the text was tokenised"
    assert "the tokenizer" in found.line("kept") and found.line("go on")
    assert signal.getsignal(signal.Signals[name]) == before


def test_a_python_without_the_packages_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lightning_embed.commands.fit", raising=False)
    monkeypatch.setitem(sys.modules, "lightning", None)  # an import of it fails
    told = run("fit").error_line()
    assert told.startswith("this Python has no lightning: install with `")
    assert shlex.split(told.split("`")[1])[1:] == ["-m", "pip", "install", "-e", str(ROOT)]
