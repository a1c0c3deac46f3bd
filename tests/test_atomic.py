"""Work folders and their owners."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_embed import atomic
from lightning_embed.atomic import sweep_orphans, work_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from lightning_embed.atomic import work_folder
with work_folder(Path(sys.argv[1])) as work:
    (work / "half").write_text("written")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")])
    assert killed.returncode == -9 and len(left_in(tmp_path)) == 1
    sweep_orphans(tmp_path)
    assert left_in(tmp_path) == []


def test_a_live_owner_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with work_folder(tmp_path / "a") as work, work_folder(tmp_path / "a") as other:
        assert work != other
        sweep_orphans(tmp_path)
        assert sorted(left_in(tmp_path)) == sorted([work.name, other.name])
        monkeypatch.setattr(atomic, "_started", lambda pid: "7")  # its number was given again
        sweep_orphans(tmp_path)
        assert (left_in(tmp_path) == []) == Path("/proc/self/stat").exists()


def test_another_hosts_and_anybodys_folders_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".a.tmp-abcd1234").mkdir()  # of version 0.1, without an owner
    (tmp_path / "0123456789abcdef").mkdir()
    monkeypatch.setattr(atomic, "_host", lambda: "another-host-1")
    with work_folder(tmp_path / "a") as work:
        monkeypatch.undo()
        monkeypatch.setattr(atomic, "_runs", lambda pid, start: False)
        sweep_orphans(tmp_path)
        assert work.is_dir() and len(left_in(tmp_path)) == 3


def test_without_proc_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        assert number == 0
        if pid != os.getpid():
            raise {1: PermissionError, 2: ProcessLookupError}[pid]

    monkeypatch.setattr(os, "kill", kill)
    assert [atomic._runs(pid, "0") for pid in (os.getpid(), 1, 2)] == [True, True, False]


def test_a_work_folder_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no more"), work_folder(tmp_path / "x" / "a") as work:
        (work / "half").write_text("written")
        raise OSError("no more")
    assert left_in(tmp_path / "x") == []
