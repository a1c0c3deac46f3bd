"""Data sets that come from a Hub over HTTP: one on this machine, which breaks off, stalls, refuses.

A process of its own reads them, because the Hub's client takes its address when it is imported.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import hub_server
import pytest
from hub_server import Fault, breaks_off, refuses, stalls

MANY = 10**9
LINES = [f"story {number} of many" for number in range(3_000)]
FILES = {"data/train.jsonl": "".join(json.dumps({"text": x}) + "\n" for x in LINES).encode()}
READ = """
import sys
from lightning_embed.errors import UserError
from lightning_embed.sources.hub import HubCorpus
from lightning_embed.sources.source import About
for name in sys.argv[1:]:
    try:
        texts = [document.text for document in HubCorpus(name).documents(About())]
        print("came", name, len(texts), texts[-1])
    except UserError as error:
        print("line", name, error)
"""


def read(folder: Path, faults: dict[str, Fault], *more: str) -> tuple[dict[str, str], list[str]]:
    """What became of each data set, and all lines on screen."""
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    offline = {"hf_hub_offline", "hf_datasets_offline"}
    kept = {k: v for k, v in os.environ.items() if k.lower() not in proxies | offline}
    with hub_server.serving(FILES, faults) as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
        done = subprocess.run(
            [sys.executable, "-c", READ, *faults, *more],
            env=kept | own | {"COLUMNS": "300", "HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    named = [line.split(" ", 2) for line in lines if line.startswith(("came", "line"))]
    return {name: f"{kind} {rest}" for kind, name, rest in named}, lines


WHOLE = f"came {len(LINES)} {LINES[-1]}"


def test_a_data_set_comes_over_a_network_that_is_mended(tmp_path: Path) -> None:
    gated = {"X_Error_Code": "GatedRepo"}
    faults = {
        "someone/good": hub_server.none,
        "someone/broken": breaks_off(at=50_000, often=1),
        "someone/busy": refuses(429, often=1, only="data/", Retry_After="0"),
        "someone/gated": refuses(401, often=MANY, **gated),
    }
    found, lines = read(tmp_path, faults, "someone/absent")
    for name in ("good", "broken", "busy"):
        assert found[f"someone/{name}"] == WHOLE
    assert "Log in with `hf auth login`" in found["someone/gated"]
    assert "'someone/absent'" in found["someone/absent"]
    assert "correct --data.hub" in found["someone/absent"]
    notes = [line for line in lines if line.startswith("note")]
    assert any("train.jsonl: peer closed connection" in line for line in notes)
    assert len(lines) == len(notes) + 5  # nothing of the client's own


@pytest.mark.slow
def test_a_network_that_stays_as_it_is_ends_in_one_line(tmp_path: Path) -> None:
    faults = {
        "someone/broken": breaks_off(at=50_000, often=MANY),
        "someone/stalls": stalls,
        "someone/busy": refuses(429, often=MANY, Retry_After="0"),
        "someone/ill": refuses(503, often=MANY),
    }
    found, lines = read(tmp_path, faults)
    assert "peer closed connection" in found["someone/broken"]
    assert "timed out, after several tries; give the command again" in found["someone/stalls"]
    assert "too many requests (429); wait" in found["someone/busy"]
    assert "it answers 503" in found["someone/ill"]
    assert any("Rate limited. Waiting 1.0s before retry [Retry 5/5]" in line for line in lines)
