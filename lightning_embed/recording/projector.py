"""Files for TensorBoard's projector: vectors of tokens, and what is known of each.

    RUN/projector_config.pbtxt     names the files below, the newest vectors first
    RUN/projector/tokens.tsv       a line for each token
                  step-500.tsv     a line for each vector

Written here and not by torch, whose entries of a resumed run are there twice.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_embed.atomic import replacing
from lightning_embed.special_tokens import PAD_ID, SPECIAL_TOKENS
from lightning_embed.tokens.tokenizer import TextTokenizer

MOST = 5_000  # vectors; more are slow in a browser
COUNTED = 50_000_000  # tokens of a corpus that frequencies are counted in, at most
FOLDER = "projector"


def frequencies(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """(V,) How often each id comes at the beginning of a corpus, in at most `COUNTED` tokens."""
    return np.bincount(tokens[:COUNTED], minlength=vocab_size)


def chosen(counts: np.ndarray) -> np.ndarray:
    """(N,) ids to show: the special ones, padding among them, then the most frequent."""
    special = np.arange(len(SPECIAL_TOKENS))
    order = np.argsort(-counts, kind="stable")
    return np.concatenate([special, order[order >= len(special)]])[:MOST]


def visible(text: str) -> str:
    """A token as one word of a line: what cannot be seen has a sign or a number."""
    signs = {" ": "\N{OPEN BOX}", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    shown = "".join(
        signs.get(c, c if c.isprintable() and not c.isspace() else f"\\u{ord(c):04x}") for c in text
    )
    return shown or "(nothing)"


def in_bytes(piece: str) -> str:
    """What a byte-level vocabulary spells with a letter for each byte, as numbers of bytes."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]  # are spelled as themselves
    others = [byte for byte in range(256) if byte not in own]  # from 256 on
    bytes_of = {chr(byte): byte for byte in own}
    bytes_of |= {chr(256 + n): byte for n, byte in enumerate(others)}
    if not all(letter in bytes_of for letter in piece):
        return visible(piece)
    found = (bytes_of[letter] for letter in piece)
    return "".join(chr(byte) if 32 < byte < 127 else f"\\x{byte:02x}" for byte in found)


def labels(tokenizer: TextTokenizer, ids: Sequence[int]) -> list[str]:
    """Each id's text; of a part of a character its bytes, of a special token its name."""
    found = []
    for number in ids:
        text = tokenizer.text_of(number)
        is_part = "\N{REPLACEMENT CHARACTER}" in text
        name = in_bytes(tokenizer.piece(number)) if is_part else visible(text)
        found.append(f"{name} (padding)" if number == PAD_ID else name)
    return found


def write_tokens(
    folder: Path, tokenizer: TextTokenizer, ids: np.ndarray, counts: np.ndarray
) -> None:
    """The labels of what is shown; `folder` is the run's."""
    named = zip(labels(tokenizer, ids.tolist()), ids.tolist(), counts[ids].tolist(), strict=True)
    lines = ["token\tid\tcount\tkind"]
    for label, number, count in named:
        kind = "token" if number >= len(SPECIAL_TOKENS) else "special"
        lines.append(f"{label}\t{number}\t{count}\t{'padding' if number == PAD_ID else kind}")
    (folder / FOLDER).mkdir(exist_ok=True)
    with replacing(folder / FOLDER / "tokens.tsv") as file:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def write_vectors(folder: Path, vectors: np.ndarray, step: int) -> None:
    """The vectors `(N, D)` of the tokens after a step, and the list of all that were written."""
    with replacing(folder / FOLDER / f"step-{step}.tsv") as file:
        lines = ("\t".join([f"{x:.4g}" for x in row]) for row in vectors.tolist())
        file.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    steps = sorted(
        (int(path.stem.removeprefix("step-")) for path in (folder / FOLDER).glob("step-*.tsv")),
        reverse=True,
    )
    entries = [
        f'embeddings {{\n  tensor_name: "embedding, step {step}"\n'
        f'  tensor_path: "{FOLDER}/step-{step}.tsv"\n  metadata_path: "{FOLDER}/tokens.tsv"\n}}\n'
        for step in steps
    ]
    with replacing(folder / "projector_config.pbtxt") as file:
        file.write_text("".join(entries), encoding="utf-8")
