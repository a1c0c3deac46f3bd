"""Ways to damage a checkpoint, or to forge one that runs code when it is unpickled."""

import io
import os
import pickle
import random
import zipfile
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lightning_embed.checkpointing.shards import mark_whole


class Original(NamedTuple):
    """An intact checkpoint."""

    content: bytes
    saved: dict[str, Any]


class Payload:
    """Unpickling this runs code, which leaves the file `trace` behind."""

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
    mark_whole(path)  # whoever can write the files can write the sums


Maker = Callable[[Original, random.Random, Path, Path], None]
KINDS: dict[Maker, int] = {  # of 200 files, how many of each kind
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
