"""The `audit` command: facts about a padding vector as lines or as one JSON object.

Exit status: 0 clean, 1 findings, 2 unreadable.
"""

import os
import sys
from contextlib import redirect_stdout
from json import dumps

from lightning_embed.audit.foreign import examine
from lightning_embed.audit.judge import judge
from lightning_embed.checkpointing.run_folders import find_checkpoint
from lightning_embed.console import printable, say
from lightning_embed.errors import UserError, one_line


def audit(path: str, json: bool = False, padding_idx: int | None = None) -> int:
    """Tell what a model makes of its padding vector, without running any code in it.

    Args:
        path: a Hugging Face folder, a Lightning checkpoint, a run's folder, best or last of the
            latest run, or a file of weights.
        json: one JSON object instead of lines.
        padding_idx: the padding id, where nothing in PATH tells it; negative counts from the end.
    """
    try:
        if "://" in path:
            raise UserError(f"{path} is an address; download it and give the folder or file")
        with redirect_stdout(sys.stderr):  # which has room for notes
            found = find_checkpoint(path, "evaluate")
        subject = examine(found, padding_idx)
        facts = list(judge(subject))
    except (UserError, OSError) as error:
        if os.environ.get("LIGHTNING_EMBED_TRACEBACK"):
            raise
        print(f"error: {printable(one_line(error))}", file=sys.stderr)
        return 2
    findings = sum(fact.verdict == "finding" for fact in facts)
    if json:
        report = {
            "path": path,
            "kind": subject.tensors.kind,
            "padding_idx": subject.padding_idx,
            "findings": findings,
            "facts": [
                {"verdict": f.verdict, "about": f.about, "text": f.text, **f.values} for f in facts
            ],
        }
        print(dumps(report, indent=2, allow_nan=False))
        return int(findings > 0)
    tensors = subject.tensors
    say("audit", f"{path}: {tensors.kind}, {len(tensors.entries):,} tensors")
    for fact in facts:
        say(fact.verdict, f"{fact.about}: {fact.text}")
    clean = "clean" if subject.padding_idx is not None else "no finding, but no known padding id"
    say("verdict", f"{findings} finding{'s' * (findings != 1)}" if findings else clean)
    return int(findings > 0)
