"""A corpus as tokens on disk: made in one pass over its text, found again by fingerprint.

    <cache_dir>/<key>/   the files of `token_files.py`

The key hashes the source's fingerprint, the tokenizer's and the vocabulary asked for, so a changed
text or tokenizer never finds a stale folder; window length is no part of it, because windows are
cut when batches are planned. A folder appears under its name only when it is whole, and is looked
through when it is found again: a damaged one is made anew (`checksums.py`). One process makes it,
others wait (`lock.py`); a killed one is gone on with (`work.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lightning_embed.atomic import remove, sweep_orphans, work_folder
from lightning_embed.console import say, short
from lightning_embed.errors import UserError, one_line, writing
from lightning_embed.interrupts import Ended, name_of
from lightning_embed.sources.source import Source
from lightning_embed.tokens import checksums
from lightning_embed.tokens.encoding import write
from lightning_embed.tokens.foreseen import foresee, room
from lightning_embed.tokens.lock import Lock, NoLocks, locked
from lightning_embed.tokens.split_writer import CannotGoOn
from lightning_embed.tokens.token_files import (
    SPLITS,
    Report,
    Split,
    fits_together,
    is_prepared,
)
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.trained import TokenizerChoice, given_tokenizer
from lightning_embed.tokens.work import (
    Work,
    lock_beside,
    sweep_abandoned,
    work_beside,
)

FORMAT = 1  # raise when the layout or the meaning of a file changes


@dataclass(frozen=True)
class Prepared:
    """An opened folder."""

    path: Path
    tokenizer: TextTokenizer
    train: Split
    validation: Split
    report: Report

    @property
    def key(self) -> str:
        return self.path.name


def default_cache_dir() -> Path:
    """The folder of all prepared folders where nobody names one."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a container's user without an entry in its list of users
        raise UserError("this user has no home folder: say where with --data.cache_dir") from None
    return Path(base) / "lightning_embed"


def open_prepared(path: Path) -> Prepared:
    """Map a folder that `prepare` made; costs no reading of its tokens."""
    tokenizer = TextTokenizer.load(str(path / "tokenizer.json"))
    train, validation = (Split.open(path / name, tokenizer.id_type) for name in SPLITS)
    with suppress(OSError):  # of somebody else
        os.utime(path)  # `data list` and `data clean` tell by it when it was last used
    return Prepared(path, tokenizer, train, validation, Report.load(path))


def data_key(source: Source, *, tokenizer: TokenizerChoice, vocab_size: int | None) -> str:
    """The name of the folder that `prepare` makes of the same arguments."""
    given = given_tokenizer(tokenizer)
    identity = [FORMAT, source.fingerprint, "" if given else tokenizer, vocab_size]
    identity.append(given.fingerprint if given else "")
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def prepare(
    source: Source, cache_dir: Path, *, tokenizer: TokenizerChoice, vocab_size: int | None
) -> Path:
    """The folder of `source`'s tokens, made now unless it is there.

    Args:
        source: the corpus.
        cache_dir: folder of all prepared folders.
        tokenizer: one of `TRAINED` to train it on the training part, else a file or Hub name, or a
            tokenizer itself.
        vocab_size: ids of a trained BPE at most; None takes what suits the size of the text.

    Raises:
        UserError: the folder cannot be written, or the text cannot be used.
    """
    key = data_key(source, tokenizer=tokenizer, vocab_size=vocab_size)
    target = cache_dir / key
    with writing(cache_dir, "--data.cache_dir", lambda: room(source, cache_dir, tokenizer)):
        sweep_orphans(cache_dir)
        if is_prepared(target) and not damage(target):
            return target
        cache_dir.mkdir(parents=True, exist_ok=True)
        try:
            with locked(lock_beside(target), f"the tokens {key}") as lock:
                if not _is_found(target):
                    sweep_abandoned(cache_dir)
                    begun = work_beside(target).begun()
                    done = begun.size if begun else 0
                    with _told_if_ended(work_beside(target)):
                        foresee(source, cache_dir, tokenizer, vocab_size, done)
                        _make(source, work_beside(target), target, tokenizer, vocab_size, lock)
        except NoLocks as error:
            say("note", f"{cache_dir} has no locks ({error}): processes do not wait for each other")
            if not _is_found(target):
                with work_folder(target) as path, _told_if_ended(Work(path)):
                    _make(source, Work(path), target, tokenizer, vocab_size)
    return target


def _is_found(target: Path) -> bool:
    """Whether the folder is there; a damaged one is so no more."""
    fault = damage(target) if target.exists() else "none"
    if fault and target.exists():
        say("warning", f"prepared tokens {target} are damaged ({fault}): made anew")
        # a run that has it open keeps its files, and another may remove it at the same time
        with work_folder(target) as aside, suppress(FileNotFoundError):
            os.replace(target, aside / target.name)
    return not fault


def _make(
    source: Source,
    work: Work,
    target: Path,
    tokenizer: TokenizerChoice,
    vocab_size: int | None,
    lock: Lock | None = None,
) -> None:
    """Write the folder, from where a killed run was, and put it in its place."""
    try:
        try:
            write(source, work, tokenizer, vocab_size, target.name, lock)
        except CannotGoOn as why:
            say("note", f"tokens that an ended run has left are of no use ({why}): begun anew")
            work.empty()
            write(source, work, tokenizer, vocab_size, target.name, lock)
        checksums.note_checksums(work.folder)
        try:
            os.rename(work.folder, target)
        except OSError:  # another process was first: its folder holds the same
            if damage(target):
                raise
        remove(work.path)
    except BaseException as error:
        begun, ended = work.begun(), isinstance(error, Ended | KeyboardInterrupt)
        if lock is None or begun is None or not (begun.items or ended):
            remove(work.path)
        elif not ended:
            say(
                "note",
                f"{short(begun.size)}B of text are tokenised: the same command goes on there",
            )
        raise


@contextmanager
def _told_if_ended(work: Work) -> Iterator[None]:
    """Where a signal ends the block, say so, and what is kept of its work."""
    try:
        yield
    except (Ended, KeyboardInterrupt) as error:
        begun = work.begun()
        say("stopped", f"by {name_of(error)} while the text was tokenised")
        if begun is None:
            say("kept", "nothing: the same command begins anew")
        elif not begun.items:
            say("kept", "the tokenizer: the same command goes on with it")
        else:
            say("kept", f"{short(begun.size)}B of text as tokens: the same command goes on there")
        if isinstance(error, Ended):
            error.told, error.goes_on = True, begun is not None
        raise


def damage(folder: Path, up_to: float | None = None) -> str:
    """What is wrong with a prepared folder, in a few words; nothing if it is whole. Of files of
    more than `up_to` bytes only the size is compared."""
    if (folder / checksums.CHECKSUMS).exists():
        return checksums.damage(folder, up_to)
    try:  # of version 0.1
        found = open_prepared(folder)
        for name, split in zip(SPLITS, (found.train, found.validation), strict=True):
            if not fits_together(split, len(found.report.sources)):
                return f"the files in {name} do not belong together"
    except (OSError, ValueError, TypeError, AttributeError, LookupError, EOFError) as error:
        return one_line(error)
    return ""
