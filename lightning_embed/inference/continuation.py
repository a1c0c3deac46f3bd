"""`Continuation`: the text of ids that come one by one, given out as soon as it is certain.

A token can be part of a character, and text that a stop string may still cut off is held back.
"""

from collections.abc import Sequence

from lightning_embed.tokens.tokenizer import TextTokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what bytes that are no character yet decode to


class Continuation:
    """Text of the ids after a prompt; all pieces together are the text.

    Args:
        tokenizer: that decodes.
        prompt: ids before the first.
        stop: strings, not empty, before the first of which the text ends.
    """

    def __init__(
        self, tokenizer: TextTokenizer, prompt: Sequence[int], stop: Sequence[str] = ()
    ) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.stopped = False
        self._given, self._new = _last_character(tokenizer, prompt), list[int]()
        self._inside = any(number != tokenizer.bos_id for number in prompt)
        self._held = ""

    def add(self, new: int) -> str:
        """The text that is certain with one more id; "" after a stop string."""
        self._new.append(new)
        piece = self._decoded()
        if piece.endswith(UNFINISHED):
            return ""
        self._given, self._new = self._new, []
        self._inside = self._inside or bool(piece)
        return self._release(piece)

    def rest(self) -> str:
        """What was held back, once no id follows."""
        if self.stopped:
            return ""
        piece = self._release(self._decoded())
        held, self._held = self._held, ""
        return piece if self.stopped else piece + held

    def _decoded(self) -> str:
        """The text of the new ids. What was given last is decoded before them, as some decoders
        look at a token's neighbours; inside a text so is a word, as many leave out a text's first
        space, and special ids have no text that could stand before it."""
        given = [*self.tokenizer.anchor, *self._given] if self._inside else self._given
        before = self.tokenizer.decode(given)
        return self.tokenizer.decode([*given, *self._new])[len(before) :]

    def _release(self, piece: str) -> str:
        if self.stopped:
            return ""
        text = self._held + piece
        cuts = [at for each in self.stop if (at := text.find(each)) >= 0]
        if cuts:
            self.stopped = True
            return text[: min(cuts)]
        certain = len(text) - max((_begun(text, each) for each in self.stop), default=0)
        self._held = text[certain:]
        return text[:certain]


def _last_character(tokenizer: TextTokenizer, ids: Sequence[int]) -> list[int]:
    """The last ids that hold a whole character, of at most four bytes."""
    for length in range(1, 5):
        if not tokenizer.decode(ids[-length:]).startswith(UNFINISHED):
            return list(ids[-length:])
    return list(ids[-1:])


def _begun(text: str, stop: str) -> int:
    """How many of the last characters of `text` may be the beginning of `stop`."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)
