"""200 damaged checkpoints: none runs foreign code, none loads altered weights, none is passed over
without a word.

    python benchmarks/damage.py [--seed 0]

Each is given by path to `fit`, to `LanguageModel.load_from_checkpoint`, and laid down as the newest
`last.ckpt` of a run that has an older good one; a sample goes through whole commands (`fit`,
`validate`, `generate`) in processes of their own, the rest through the command line in this one.
Those that carry code are loaded also with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 and from URLs served
here. What was loaded is compared bit by bit with what was saved: a flipped bit in an archive's
filling that changes nothing may load, and "altered" are weights or moments. Leaves with status 1 if
anything is wrong.
"""

import argparse
import contextlib
import functools
import http.server
import io
import os
import pickle
import random
import re
import shutil
import tempfile
import threading
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from observers import LOADED, digest, read_lines
from small_runs import Outcome, SmallRuns, load, run

from lightning_embed.training.lightning_module import LanguageModel

STEPS = ("--checkpoints.every_n_steps", "3", "--trainer.max_steps", "6")
EVERY = 20  # each so many, and the first of each kind, goes through whole commands too
FINE = ("refused", "older used", "loaded, equal")
WRONG = (
    *("code ran", "altered", "from scratch"),
    *("traceback", "more than a line", "refused with an older one at hand"),
)

# What is done to a checkpoint --------------------------------------------------------------------


class Original(NamedTuple):
    """An intact checkpoint."""

    content: bytes
    saved: dict[str, Any]


class Payload:
    """Unpickling this runs a program, which leaves a file behind."""

    def __init__(self, trace: Path, draw: random.Random) -> None:
        write = f"open({str(trace)!r}, 'w').close()"
        self.call = draw.choice(
            [(open, (str(trace), "w")), (os.system, (f"touch {trace}",)), (exec, (write,))]
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def truncated(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    path.write_bytes(o.content[: draw.randrange(1, len(o.content))])


def cut_near_the_end(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    path.write_bytes(o.content[: -draw.randrange(1, 200)])


def empty(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    path.write_bytes(b"")


def flip(o: Original, path: Path, draw: random.Random, begin: int, end: int, bits: int = 1) -> None:
    content = bytearray(o.content)
    for _ in range(bits):
        content[draw.randrange(begin, end)] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def a_bit_anywhere(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    flip(o, path, draw, 0, len(o.content))


def bits_anywhere(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    flip(o, path, draw, 0, len(o.content), bits=draw.randrange(2, 40))


def a_bit_in_the_directory(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    flip(o, path, draw, o.content.index(b"PK\x01\x02"), len(o.content))


def a_bit_in_the_pickle(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    flip(o, path, draw, 0, 8_000)


def a_stretch_of_zeros(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    """As a file system leaves it whose data did not reach the disk."""
    begin = draw.randrange(len(o.content))
    length = min(4096, len(o.content) - begin)
    path.write_bytes(o.content[:begin] + bytes(length) + o.content[begin + length :])


def doubled_or_longer(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    path.write_bytes(o.content + draw.choice([o.content, draw.randbytes(5_000), b"\0" * 70_000]))


def noise(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    path.write_bytes(
        draw.choice([draw.randbytes(len(o.content)), b"no checkpoint\n", b"PK\x03\x04"])
    )


def other_shapes(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    saved = deepcopy(o.saved)
    state = saved["state_dict"]
    name = draw.choice([key for key, value in state.items() if value.ndim == 2])
    change = draw.randrange(6)
    if change == 0:
        state[name] = state[name][:-1].clone()
    elif change == 1:
        state[name] = torch.cat([state[name], state[name]], dim=1)
    elif change == 2:
        del state[name]
    elif change == 3:
        state["model.another"] = torch.zeros(3)
    elif change == 4:
        state[name] = state[name].flatten()
    else:
        moments = next(iter(saved["optimizer_states"][0]["state"].values()))
        key = next(k for k, v in moments.items() if v.ndim == 2)
        moments[key] = moments[key][:-1].clone()
    torch.save(saved, path)


def foreign(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    """Whole files of torch's that are something else, or ours with parts of another kind."""
    saved = deepcopy(o.saved)
    optimizer = saved["optimizer_states"][0]
    torch.save(
        draw.choice(
            [
                {"weight": torch.zeros(3)},
                [torch.zeros(3)],
                saved["state_dict"],
                {"state_dict": {}, "hyper_parameters": {}},
                saved | {"hyper_parameters": "none"},
                saved | {"state_dict": [1, 2]},
                saved | {"global_step": "six"},
                saved | {"optimizer_states": []},
                saved | {"optimizer_states": [optimizer | {"param_groups": []}]},
                saved | {"loops": {}},
                saved | {"callbacks": None},
                saved | {"TextDataModule": {}},
            ]
        ),
        path,
    )


def foreign_pickle(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    content = draw.choice([{"a": 1}, np.arange(5), [complex(1, 2)], Counter("abc"), Path("x")])
    if draw.random() < 0.5:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save({**o.saved, "extra": content}, path)


def hide(saved: dict[str, Any], payload: Payload, draw: random.Random) -> dict[str, Any]:
    """The payload somewhere in an otherwise good checkpoint."""
    saved = deepcopy(saved)
    places: list[Any] = [saved, saved["state_dict"], saved["hyper_parameters"], saved["callbacks"]]
    places += [saved["optimizer_states"][0], saved["loops"]]
    draw.choice(places)["zzz"] = payload
    return saved


def malicious_archive(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    torch.save(hide(o.saved, Payload(trace, draw), draw), path)


def malicious_legacy(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    saved = hide(o.saved, Payload(trace, draw), draw)
    torch.save(saved, path, _use_new_zipfile_serialization=False)


def malicious_pickle(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    content = pickle.dumps(Payload(trace, draw), protocol=draw.randrange(2, 6))
    if draw.random() < 0.5:
        path.write_bytes(content)
        return
    # The pickle of a good archive is replaced, its checksums made to fit.
    with zipfile.ZipFile(io.BytesIO(o.content)) as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, content if name.endswith("/data.pkl") else good.read(name))


def malicious_folder(o: Original, draw: random.Random, path: Path, trace: Path) -> None:
    """As a checkpoint in shards, whose metadata torch itself would unpickle."""
    path.mkdir()
    (path / ".metadata").write_bytes(pickle.dumps(Payload(trace, draw)))
    (path / "__0_0.distcp").write_bytes(o.content)
    torch.save({"x": Payload(trace, draw)}, path / "meta.pt")
    with contextlib.suppress(ImportError):
        from lightning_embed.checkpointing.shards import mark_whole

        mark_whole(path)  # whoever can write the files can write the sums


def name_of(make: "Maker") -> str:
    return make.__name__.replace("_", " ")


Maker = Callable[[Original, random.Random, Path, Path], None]
KINDS: dict[Maker, int] = {
    truncated: 30,
    cut_near_the_end: 8,
    empty: 2,
    a_bit_anywhere: 40,
    bits_anywhere: 10,
    a_bit_in_the_directory: 15,
    a_bit_in_the_pickle: 10,
    a_stretch_of_zeros: 10,
    doubled_or_longer: 6,
    noise: 5,
    other_shapes: 12,
    foreign: 18,
    foreign_pickle: 6,
    malicious_archive: 12,
    malicious_legacy: 6,
    malicious_pickle: 8,
    malicious_folder: 2,
}
MALICIOUS = (malicious_archive, malicious_legacy, malicious_pickle, malicious_folder)
WHOLE = (other_shapes, foreign, foreign_pickle, *MALICIOUS)  # told from ours by content alone


# What a command makes of it ----------------------------------------------------------------------


class Known(NamedTuple):
    """The state of a good checkpoint."""

    step: int
    weights: str
    moments: str


class Bench:
    """The run that is damaged again and again, and what came of it."""

    def __init__(self, shop: SmallRuns, draw: random.Random) -> None:
        self.shop, self.draw = shop, draw
        self.template = shop.root / "run"
        shop.must_succeed("fit", "--name", "run", *STEPS)
        checkpoints = self.template / "checkpoints"
        (checkpoints / "best.ckpt").unlink(missing_ok=True)
        self.paths = checkpoints / "previous.ckpt", checkpoints / "last.ckpt"
        self.original = Original(self.paths[1].read_bytes(), load(self.paths[1]))
        self.known = [self._state(path) for path in self.paths]
        told = run("generate", "--checkpoint", self.paths[1], "--max_new_tokens", "8")
        self.text = told.out
        self.away = shop.root.parent / "damaged"
        self.away.mkdir()
        self.trace = shop.root.parent / "trace"
        self.commands = 0
        self.found: dict[str, Counter[str]] = defaultdict(Counter)
        self.faults: list[str] = []

    def _state(self, path: Path) -> Known:
        """As `fit` sees it when it goes on from there."""
        told, state = self.fit("--name", "run", "--ckpt_path", str(path))
        if state is None or state.step not in (3, 6):
            raise SystemExit(f"an intact checkpoint does not load:\n{told.out}{told.err}")
        if state.weights != digest(load(path)["state_dict"]):
            raise SystemExit("an intact checkpoint loads other weights than it holds")
        return state

    def observed(self) -> tuple[tuple[str, ...], Path]:
        file = self.shop.root.parent / f"seen{time.monotonic_ns()}"
        name = "--trainer.callbacks"
        return (f"{name}+=observers.Loaded", f"{name}.file={file}"), file

    def fit(self, *args: str, apart: bool = False, **environment: str) -> tuple[Outcome, Any]:
        return self.command("fit", "--trainer.max_steps", "9", *args, apart=apart, **environment)

    def command(self, *args: str, apart: bool = False, **environment: str) -> tuple[Outcome, Any]:
        """How a command ended, and what it had loaded if it got so far."""
        options, file = self.observed()
        if apart:
            self.commands += 1
            told = self.shop.start(*args, *options, environment=environment).outcome(120)
        else:
            try:
                told = self.shop.run(args[0], *args[1:], *options)
            except Exception as error:  # an uncaught one is a traceback on a person's screen
                told = Outcome(1, "", f"Traceback: {type(error).__name__}: {error}")
        lines = read_lines(file)
        return told, Known(**lines[0]) if lines else None

    # One damaged checkpoint

    def judge(self, told: Outcome, state: Known | None, *, trained: bool = True) -> str:
        """One word for what happened; those in WRONG must not."""
        if self.trace.exists():
            self.trace.unlink()
            return "code ran"
        if "Traceback" in told.out + told.err or told.status not in (0, 1, LOADED):
            return "traceback"
        if state is not None:
            if state.step == 0 and trained:
                return "from scratch"
            for name, known in zip(("older used", "loaded, equal"), self.known, strict=True):
                if state.weights == known.weights and (
                    not trained or (state.step, state.moments) == (known.step, known.moments)
                ):
                    return name
            return "altered"
        if len(told.err.splitlines()) != 1 or not told.err.startswith("error: "):
            return "more than a line"
        return "refused"

    def note(self, kind: str, way: str, verdict: str, said: str = "") -> None:
        self.found[kind][verdict] += 1
        if verdict in WRONG:
            lines = said.strip().splitlines() or [""]
            said = " / ".join(lines[-3:]) if verdict == "more than a line" else lines[-1]
            self.faults.append(f"{kind}, {way}: {verdict}: {said[:300]}".rstrip(": "))

    def try_one(self, number: int, make: Maker) -> None:
        kind = name_of(make)
        path = self.away / f"damaged{number}.ckpt"
        make(self.original, self.draw, path, self.trace)
        self.trace.unlink(missing_ok=True)
        apart = number % EVERY == 0 or kind not in self.found
        unsafe = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"} if make in MALICIOUS else {}

        told, state = self.fit("--ckpt_path", str(path), apart=apart, **unsafe)
        self.note(kind, "fit by path", self.judge(told, state), told.err)
        if apart:
            told, state = self.command("validate", "--ckpt_path", str(path), apart=True, **unsafe)
            self.note(kind, "validate", self.judge(told, state, trained=False), told.err)
            self._generate(kind, path, unsafe)
        self._newest(number, make, path, apart, unsafe)
        self._load_from_checkpoint(kind, path, make in MALICIOUS)

    def _generate(self, kind: str, path: Path, unsafe: dict[str, str]) -> None:
        self.commands += 1
        told = self.shop.start_plain(
            "generate", "--checkpoint", path, "--max_new_tokens", "8", environment=unsafe
        ).outcome(120)
        same = told.status == 0 and told.out == self.text
        if told.status == 0 and not self.trace.exists():
            self.note(kind, "generate", "loaded, equal" if same else "altered")
        else:
            self.note(kind, "generate", self.judge(told, None), told.err)

    def _newest(
        self, number: int, make: Maker, path: Path, apart: bool, unsafe: dict[str, str]
    ) -> None:
        """As last.ckpt of a run with an older good one, which is to be used instead."""
        kind, name = name_of(make), f"run{number}x"
        target = self.shop.root / name
        shutil.copytree(self.template, target)
        last = target / "checkpoints" / "last.ckpt"
        last.unlink()
        shutil.copytree(path, last) if path.is_dir() else shutil.copy(path, last)
        told, state = self.fit("--name", name, "--ckpt_path", "last", apart=apart, **unsafe)
        verdict = self.judge(told, state)
        if verdict == "older used" and "last.ckpt" not in told.out:
            verdict = "from scratch"  # three steps lost, and nothing said
        if verdict == "refused" and make not in WHOLE:
            verdict = WRONG[-1]
        self.note(kind, "as the newest", verdict, told.err)
        shutil.rmtree(target)

    def _load_from_checkpoint(self, kind: str, path: Path, malicious: bool) -> None:
        sources = {"load_from_checkpoint": str(path)}
        if malicious and path.is_file():
            sources["load_from_checkpoint file://"] = path.as_uri()
            sources["load_from_checkpoint http://"] = f"{self.url}/{path.name}"
        for forced in (False, True) if malicious else (False,):
            for way, source in sources.items():
                os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
                if not forced:
                    del os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"]
                try:
                    module = LanguageModel.load_from_checkpoint(source, map_location="cpu")
                    equal = digest(module.state_dict()) == self.known[1].weights
                    verdict = "loaded, equal" if equal else "altered"
                except Exception:  # any will do here, the caller is a program
                    verdict = "refused"
                os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
                if self.trace.exists():
                    self.trace.unlink()
                    verdict = "code ran"
                self.note(kind, way + (" forced" if forced else ""), verdict)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """The damaged files on a port of this machine."""

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

        handler = functools.partial(Quiet, directory=str(self.away))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield
            server.shutdown()


def main() -> None:
    from results import record

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="kinds whose name contains this")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCH_HOME"] = folder  # what comes from a URL is kept there
        bench = Bench(SmallRuns(Path(folder)), random.Random(given.seed))
        cases = [kind for kind, count in KINDS.items() for _ in range(count)]
        with bench.serving():
            for number, make in enumerate(cases):
                if given.only is None or given.only in make.__name__:
                    bench.try_one(number, make)
                    print(number, name_of(make), dict(bench.found[name_of(make)]), flush=True)
    columns = (*FINE, *WRONG)
    table = [f"| kind | files | {' | '.join(columns)} |", "| --- " * (2 + len(columns)) + "|"]
    counts: Counter[str] = Counter()
    for make, count in KINDS.items():
        counts.update(bench.found[name_of(make)])
        table.append(row(name_of(make), count, bench.found[name_of(make)], columns))
    table.append(row("all", len(cases), counts, columns))
    text = f"{counts.total()} attempts, {bench.commands} of them whole commands; seed {given.seed};"
    text += f" {(time.monotonic() - began) / 60:.0f} minutes.\n\n" + "\n".join(table)
    if bench.faults:
        alike = Counter(re.sub(r"(run|damaged)\d+x?", r"\1", fault) for fault in bench.faults)
        text += f"\n\n{len(bench.faults)} faults:\n\n"
        text += "\n".join(f"- {count} x {fault}" for fault, count in alike.most_common())
    record("Damaged checkpoints", text.replace(folder, "."))
    raise SystemExit(1 if bench.faults else 0)


def row(name: str, files: int, found: Counter[str], columns: tuple[str, ...]) -> str:
    return f"| {name} | {files} | {' | '.join(str(found[c]) for c in columns)} |"


if __name__ == "__main__":
    main()
