"""What a person sees of a run: on terminals, in a pipe, after Ctrl-C, on resume."""

import io
import os
import re
import sys
from pathlib import Path

import pytest
from terminal import Screen, on_terminal
from workshop import Workshop

from lightning_embed import bar
from lightning_embed.cli import main
from lightning_embed.watching import pace

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
STEPS = ("--trainer.max_steps", "12", "--trainer.val_check_interval", "6")
NAME = "ein Lauf für 日本"

# Figures are # and samples ...; further figures of the machine are left out.
TRANSCRIPT = """\
run      runs/{name}   seed 42
corpus   30 files, doc00.txt to doc29.txt, # documents, # MB  [#]
         held out: # of 30 files, by name
tokens   # to train, # held out; vocabulary #; <pad>=1 checked
numbers  32-true (as asked); muon; # thread
         step 1  loss #  first loss # after start
compile  off, training runs eager: model.compile is false
         validation at step 6: loss #  # bits/byte
         step 12/12  100 %  loss #  # real tok/s  padding # % ...
         validation at step 12: loss #  # bits/byte
finished 12 steps in #
speed    # real tok/s   padding # % ...
held out validation loss #   perplexity #   accuracy #
         bits per byte #
         95 % over # held-out documents #-# too few or too unequal, a rough idea
         xz -9e needs # alone, # after the training text: ratio #
padding  row zero after 12 steps
sample   ...
best     runs/{name}/checkpoints/best.ckpt   # MB
watch    tensorboard --logdir runs
"""


@pytest.fixture(autouse=True)
def uncut_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here they are cut."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def bench(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Runs in a folder that is the working one, bars at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bar, "PATIENCE", 0.0)
    monkeypatch.setattr(bar, "DRAWINGS_PER_SECOND", 100)
    monkeypatch.setattr(pace, "FIRST", 1e9)  # no line more on a slow machine
    return Workshop(workshop.files, workshop.cache, Path("runs"))


def fit(bench: Workshop, *more: str, name: str = "a") -> int:
    environment = dict(os.environ)
    arguments = ("--name", name, *STEPS, "--samples.prompts", "[words]", *more)
    try:
        return main(bench.arguments("fit", *arguments))
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        os.environ.clear()
        os.environ.update(environment)


def unnumbered(text: str) -> str:
    """As `TRANSCRIPT` is written, up to the first of the commands."""
    text = re.split(r"\s+go on", text)[0] + "\n"
    text = re.sub(
        r"(real tok/s\s+padding +[\d.]+ %).*?(?=\s+(?:validation|held out))",
        r"\1 ...",
        text,
        flags=re.S,
    )
    text = re.sub(r"(sample +)\S.*?(?=\s+best )", r"\1...", text, flags=re.S)
    text = re.sub(r"\[[0-9a-f]{8}\]", "[#]", text)
    kept = (
        r"(runs/\S+|step \d+(?:/12)?|12 steps|30 files|doc\d\d|95 %|100 %|-9e|=1|32-true|seed 42)"
    )
    parts = re.split(kept, text)
    parts[::2] = [re.sub(r"\d[\d,.:]*(?: [kMGT]\b)?", "#", part) for part in parts[::2]]
    return "".join(parts).replace("# threads", "# thread")  # there may be one


def words(text: str) -> str:
    return " ".join(text.split())


def assert_tidy(screen: Screen) -> None:
    """Nothing wraps, and nothing of a bar is left."""
    assert screen.wraps == 0, screen.text
    assert "━" not in screen.text and "ETA" not in screen.text


def shown(screen: Screen) -> list[str]:
    """What the bar of training showed."""
    lines = [line for line in dict.fromkeys(screen.seen) if re.search(r"step \d+/12", line)]
    assert lines, screen.raw
    return lines


def test_in_a_pipe(bench: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with monkeypatch.context() as pipe:
        pipe.setattr(sys, "stdout", out)
        assert fit(bench, name=NAME) == 0
    text = out.getvalue()
    assert unnumbered(text).replace("'", "") == TRANSCRIPT.format(name=NAME)
    assert max(map(len, text.splitlines())) <= 100 and not CONTROL.search(text)


@pytest.mark.parametrize("columns", [40, 80])
def test_on_a_terminal(bench: Workshop, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    with on_terminal(monkeypatch, columns) as screen:
        assert fit(bench) == 0
    assert_tidy(screen)
    wanted = re.sub(r"\n +step 1.*", "", TRANSCRIPT.format(name="a"))  # the bar says it
    assert unnumbered(words(screen.text)).strip() == words(wanted)
    assert all(len(line) < columns for line in shown(screen))
    assert any(re.search(r"step \d+/12  loss \d", line) for line in shown(screen))
    if columns == 80:
        whole = r"━  step \d+/12  loss [\d.]+  ETA 0:0\d  [\d.]+( k)? real tok/s  val [\d.]+"
        assert any(re.search(whole, line) for line in shown(screen))


def test_after_a_stop_and_on_resume(bench: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = "--trainer.callbacks"
    interrupt = (f"{stop}+=workshop.SignalAt", f"{stop}.step=9", f"{stop}.signal_name=SIGINT")
    with on_terminal(monkeypatch, 80) as screen:
        assert fit(bench, *interrupt, name=NAME) == 130
        screen_of_stop = "stopped  by SIGINT after step 9\n"
    assert_tidy(screen)
    text = screen.text
    assert shown(screen) and screen_of_stop in text
    assert f"saved    runs/{NAME}/checkpoints/last.ckpt\ngo on " in text
    with on_terminal(monkeypatch, 80) as screen:
        assert fit(bench, "--ckpt_path", "last", name=NAME) == 0
    assert_tidy(screen)
    assert shown(screen)[0].split("  ")[-1] == "step 9/12"
    assert "finished 3 steps" in screen.text


@pytest.mark.slow
def test_a_terminal_that_can_rewrite_nothing(
    bench: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its width nor its kind are known; lines are asked for, too."""
    with on_terminal(monkeypatch, 0, TERM="dumb") as screen:
        assert fit(bench) == 0
    assert screen.wraps == 0 and "\x1b" not in screen.raw
    assert unnumbered(words(screen.text)).strip() == words(TRANSCRIPT.format(name="a"))
