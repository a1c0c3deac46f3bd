"""The Python API: the three lines, what it refuses, and how soon it is there."""

import io
import json
import math
import re
import subprocess
import sys

import pytest
import torch
from workshop import ROOT, run

from lightning_embed import load
from lightning_embed.errors import UserError
from lightning_embed.inference.sampling import Sampling
from lightning_embed.inference.score import TextScore
from lightning_embed.inference.text_model import TextModel
from lightning_embed.inference.texts import Piece, joined

SHORT = {"max_new_tokens": 8}


@pytest.fixture(scope="module")
def folder(finished) -> str:
    return str(finished[0].root / "done")


@pytest.fixture(scope="module")
def model(folder) -> TextModel:
    return load(folder, device="cpu")


def test_a_text_gives_a_text_and_a_list_a_list(model) -> None:
    one = model.generate("abc", **SHORT)
    assert isinstance(one, str) and one
    same, begun, other = model.generate(["abc", "", "abc"], **SHORT)
    assert same == one == model.generate("abc", **SHORT) != other
    assert begun == model.generate("", **SHORT)
    assert not model.network.training


def test_many_prompts_are_computed_some_at_a_time(model) -> None:
    prompts = [f"{number} words" for number in range(40)]
    texts = model.generate(prompts, max_new_tokens=2)
    assert [texts[n] for n in (0, 16, 39)] == [
        model.generate(prompts[n], max_new_tokens=2) for n in (0, 16, 39)
    ]


def test_a_stop_string_ends_the_text(model) -> None:
    text = model.generate("", max_new_tokens=40)
    stop = text[10:12]
    assert model.generate("", max_new_tokens=40, stop=stop) == text[: text.index(stop)]
    assert model.generate("", max_new_tokens=40, stop=["never", stop]) == text[: text.index(stop)]


def test_a_prompt_longer_than_the_window_is_told_of(model) -> None:
    with pytest.warns(UserWarning, match="the model sees the last 32$"):
        model.generate("word " * 60, max_new_tokens=1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model.generate([]), "no prompt"),
        (lambda model: model.generate("", max_new_tokens=0), "--max_new_tokens must be at least 1"),
        (lambda model: model.generate("", temperature=-1), "--temperature must be at least 0"),
        (lambda model: model.generate("", stop=""), "--stop is empty"),
        (lambda model: model.score(""), "empty"),
        (
            lambda model: model.generate("a\ud800b"),
            r"prompt is not UTF-8: character 2 is '\\ud800'",
        ),
        (lambda model: model.generate(["a", "\udcff"]), "prompt is not UTF-8"),
        (lambda model: model.unread("\udcff"), "prompt is not UTF-8"),
        (lambda model: model.generate("a", stop="\udcff"), "stop is not UTF-8"),
        (lambda model: model.score("a\ud800b"), "text is not UTF-8"),
        (lambda model: load("x" * 5000), "cannot be read: File name too long"),
    ],
)
def test_mistakes_are_told_in_one_line(model, call, words) -> None:
    with pytest.raises(UserError, match=words):
        call(model)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model.generate(b"x"), "prompt must be a string or several, not b'x'"),
        (lambda model: model.generate(None), "prompt must be a string or several, not None"),
        (lambda model: model.generate(["a", None]), "prompt must be a string, not None"),
        (lambda model: model.generate("", max_new_tokens=1.5), "--max_new_tokens .* not 1.5"),
        (lambda model: model.generate("", temperature=None), "--temperature .* not None"),
        (lambda model: model.generate("", stop=[5]), "stop must be a string, not 5"),
        (lambda model: model.score(["a"]), "text must be a string"),
        (lambda model: load(None), "path must be a string or a path, not None"),
    ],
)
def test_other_types_are_refused_by_the_arguments_name(model, call, words) -> None:
    with pytest.raises(TypeError, match=words):
        call(model)


def test_no_stop_string_may_be_none(model) -> None:
    assert model.generate("abc", stop=None, **SHORT) == model.generate("abc", **SHORT)


@pytest.mark.parametrize("device", ["nonsense", "meta", 1.5])
def test_an_unknown_device_is_refused(folder, device) -> None:
    with pytest.raises(UserError, match=f"--device {device}"):
        load(folder, device=device)


def test_the_callers_default_device_changes_nothing(model, folder) -> None:
    with torch.device("meta"):
        there = load(folder, device="cpu")
        text = there.generate(["abc", "a longer prompt"], repetition_penalty=1.2, **SHORT)
        score = there.score("abc def")
    assert text == model.generate(["abc", "a longer prompt"], repetition_penalty=1.2, **SHORT)
    assert score == model.score("abc def")


def test_a_damaged_network_is_told_of(folder) -> None:
    model = load(folder, device="cpu")
    with torch.no_grad():
        model.network.norm.weight.fill_(math.nan)
    with pytest.raises(UserError, match="logits are not finite"):
        model.generate("abc")
    with pytest.raises(UserError, match="scores are not finite"):
        model.score("abc")


def test_the_network_stays_in_evaluation_mode(model) -> None:
    """Nothing sets it, so threads that use it at once do not disturb each other."""
    modes = list[bool]()
    model.network.train = modes.append
    try:
        stream = model.stream(["abc"], Sampling(), max_new_tokens=8)
        next(stream)
        stream.close()
    finally:
        del model.network.train
    assert not modes and not model.network.training


def test_what_the_page_shows_in_python_runs(folder, tmp_path, monkeypatch, capsys) -> None:
    page = (ROOT / "docs" / "generating.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "stdlib").symlink_to(folder, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "generating.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) >= 3


# Scores ------------------------------------------------------------------------------------------


def test_a_score_is_the_log_probability_of_each_token(model) -> None:
    text = "abc def"
    found = model.score(text)
    ids = [0, *model.tokenizer.encode(text)]
    logits = model.network(torch.tensor([ids[:-1]]))[0].log_softmax(dim=-1)
    expected = logits.gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)
    assert found.ids == ids[1:]
    assert found.log_probs == pytest.approx(expected.tolist(), abs=1e-5)
    assert found.loss == pytest.approx(-expected.mean().item(), abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.bits_per_byte == pytest.approx(-expected.sum().item() / math.log(2) / 7, abs=1e-5)


def test_of_a_long_text_each_window_begins_with_half_of_the_one_before(model) -> None:
    """Every token once, as evaluation does with `--data.eval_overlap 16` and windows of 32."""
    text = "abcde fghij " * 30
    found = model.score(text, ends=True)
    ids = [0, *model.tokenizer.encode(text), 2]
    assert found.ids == ids[1:]
    expected: list[float] = []
    for begin in range(0, len(ids) - 1, 16):
        window = ids[begin : begin + 33]
        logits = model.network(torch.tensor([window[:-1]]))[0].log_softmax(dim=-1)
        scores = logits.gather(1, torch.tensor(window[1:])[:, None]).squeeze(1).tolist()
        expected += scores[len(expected) - begin :]
    assert found.log_probs == pytest.approx(expected, abs=1e-4)


def test_the_perplexity_of_hopeless_text_is_infinite() -> None:
    assert TextScore([5], [-1e6], 1).perplexity == math.inf


# Start -------------------------------------------------------------------------------------------

SLOW = {"lightning", "torch._dynamo", "torch.distributed.tensor", "sympy", "fsspec", "datasets"}


def test_nothing_slow_is_imported_before_the_first_token(folder) -> None:
    """By the command, which calls `load`; in a process where nobody else has imported anything."""
    program = (
        "import json, sys\nfrom lightning_embed.cli import main\n"
        f"main(['generate', '--checkpoint', {folder!r}, '--max_new_tokens', '2'])\n"
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert "torch" in imported and not imported & SLOW


# The command -------------------------------------------------------------------------------------


def test_the_command_writes_prompt_and_text(model, folder) -> None:
    options = ("--checkpoint", folder, "--max_new_tokens", "8")
    alone = run("generate", *options, "--prompt", "abc")
    assert alone.out == f"abc{model.generate('abc', **SHORT)}\n" and not alone.err
    each = run("generate", *options, "--prompt", "abc", "--prompt=- d", "--json")
    assert [json.loads(line)["prompt"] for line in each.out.splitlines()] == ["abc", "- d"]
    several = run("generate", *options, "--prompt", "abc", "--samples", "2")
    one, two = model.generate(["abc", "abc"], **SHORT)
    assert several.out == f"--- 1 of 2\nabc{one}\n--- 2 of 2\nabc{two}\n"


def test_prompts_come_from_a_file_and_lines_of_json_go_out(model, folder, tmp_path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("abc\n\nword\n", encoding="utf-8")
    told = run(
        *("generate", "--checkpoint", folder, "--prompts", file, "--max_new_tokens", "8"),
        *("--samples", "2", "--stop", "e", "--stop", "f", "--json"),
    )
    rows = [json.loads(line) for line in told.out.splitlines()]
    prompts = ["abc", "abc", "", "", "word", "word"]
    assert [row["prompt"] for row in rows] == prompts
    assert [row["sample"] for row in rows] == [0, 1] * 3
    assert [row["text"] for row in rows] == model.generate(prompts, stop=["e", "f"], **SHORT)
    assert {row["ended"] for row in rows} <= {"stop", "length", "end"}
    assert all(0 < row["tokens"] <= 8 for row in rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prompts", "absent.txt"), "--prompts absent.txt cannot be read"),
        (("--prompts", "x", "--prompt", "y"), "both given"),
        (("--top_k", "-1"), "--top_k must be at least 0, not -1"),
        (("--samples", "0"), "--samples must be at least 1"),
        (("--temperature", "nan"), "--temperature cannot be nan: give float"),
        (("--temperature", "1e999"), "--temperature must be at least 0 and below inf, not inf"),
        (("--max_new_tokens", "1.5"), "--max_new_tokens cannot be 1.5: give int"),
        (("--prompt", "\udcff"), "--prompt is not UTF-8"),
        (("--prompt", "several", "words"), "words"),
        (("--stop", ""), "--stop is empty"),
        (("--stop", "a", "--stop", ""), "--stop is empty"),
        (("--stop", "\udcff"), "stop is not UTF-8"),
    ],
)
def test_mistakes_of_the_command(folder, options, words) -> None:
    assert words in run("generate", "--checkpoint", folder, *options).error_line()


@pytest.mark.parametrize("stop", ["[_, O]", "null", "a: b", "12", " x", "\U0001f600 \u2028\x07#"])
def test_a_stop_string_is_taken_as_it_is(folder, monkeypatch, stop) -> None:
    given = []
    piece = Piece(0, "", "length", 1)
    monkeypatch.setattr(
        TextModel, "stream", lambda *_, stop, **__: iter([given.append(stop) or piece])
    )
    run("generate", "--checkpoint", folder, f"--stop={stop}", "--stop", "z")
    assert given == [[stop, "z"]]


def test_what_must_be_given_is_named_as_on_the_command_line() -> None:
    assert run("generate").error_line() == "--checkpoint must be given"
    assert run("export").error_line() == "--checkpoint and --output must be given"
    assert run("audit").error_line() == "path must be given"


class Input:
    def __init__(self, found: bytes) -> None:
        self.buffer = io.BytesIO(found)


def test_prompts_of_standard_input(model, folder, monkeypatch) -> None:
    options = ("generate", "--checkpoint", folder, "--prompts", "-", "--max_new_tokens", "4")
    monkeypatch.setattr(sys, "stdin", Input("\ufeffabc\r\nä\n".encode()))
    rows = [json.loads(line) for line in run(*options, "--json").out.splitlines()]
    assert [row["prompt"] for row in rows] == ["abc", "ä"]
    monkeypatch.setattr(sys, "stdin", Input(b"\xff\n"))
    assert "--prompts - is not UTF-8 (byte 0)" in run(*options).error_line()
    monkeypatch.setattr(sys, "stdin", None)  # of a process started with it closed
    assert "standard input is closed" in run(*options).error_line()


def test_many_samples_are_made_some_at_a_time(model) -> None:
    stream = model.stream(["a", "b"], Sampling(), max_new_tokens=1, samples=10**12)
    assert next(stream).row == 0
    stream.close()
    few = model.stream(["a", "b"], Sampling(), max_new_tokens=4, samples=20)
    assert joined(few, 40) == model.generate(["a"] * 20 + ["b"] * 20, max_new_tokens=4)
