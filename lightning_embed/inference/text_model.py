"""`load` and `TextModel`: a trained model in three lines of Python, without Lightning.

model = load("runs/stdlib")
print(model.generate("def read", max_new_tokens=50))
print(model.score("def read(path):").bits_per_byte)
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from lightning_embed.errors import UserError
from lightning_embed.inference.arguments import require_text, require_whole, texts_of
from lightning_embed.inference.sampling import Sampling
from lightning_embed.inference.score import TextScore, score_text
from lightning_embed.inference.texts import Piece, joined, stream_texts
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained.export import Format, export, require_possible
from lightning_embed.pretrained.gguf import Dtype
from lightning_embed.pretrained.held_out import measure
from lightning_embed.pretrained.opening import open_pretrained
from lightning_embed.pretrained.weights import Pretrained

Text = TypeVar("Text", str, list[str])


def load(path: str | os.PathLike[str], *, device: str | None = None) -> "TextModel":
    """A trained model, ready to be used.

    Args:
        path: a run's folder, whose best checkpoint is taken; a .ckpt; a folder of shards; `best` or
            `last` of the latest run under `runs`; or a Hugging Face folder.
        device: for example "cpu" or "cuda:1"; unset, "cuda" where there is one.

    Raises:
        UserError: there is no such checkpoint, it is damaged, holds code, or is of another program
            or version; or there is no such device.
        TypeError: `path` is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a string or a path, not {path!r}")
    try:
        with torch.device("cpu"):  # whatever the caller's default is
            pretrained = open_pretrained(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return TextModel(pretrained, device=device)


class TextModel:
    """Continues and scores texts.

    Args:
        pretrained: what to use; its network is moved to the device.
        device: see `load`.

    Attributes:
        network: in evaluation mode, for good: to train it, use a copy.
        tokenizer: its own.
        max_length: positions of its training windows.
    """

    def __init__(self, pretrained: Pretrained, *, device: str | None = None) -> None:
        self.pretrained = pretrained
        self.tokenizer, self.max_length = pretrained.tokenizer, pretrained.max_length
        self.network = _moved(pretrained.network, device).eval()

    def generate(
        self,
        prompt: Text,
        *,
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_k: int | None = 50,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        stop: str | Sequence[str] | None = (),
        seed: int = 0,
    ) -> Text:
        """The text that follows a prompt, without the prompt; of a list, each one's.

        A text does not depend on the others of its list. A prompt that is there several times is
        drawn as often: `[prompt] * 4` gives four samples.

        Args:
            prompt: text to continue; "" begins a document. Of one longer than a training window
                the end is read, with a warning.
            max_new_tokens: tokens at most; a text may end earlier. Beyond a training window see
                `inference/generate.py`.
            temperature: 0 takes the most likely token, higher is more varied.
            top_k: only the k most likely tokens; 0 or None for all.
            top_p: only the most likely tokens that together reach this probability.
            repetition_penalty: above 1 makes tokens that stand in the text already less likely.
            seed: of the draws.
            stop: a string or several; the text ends before the first of them.

        Raises:
            UserError: a value outside its limits; no prompt, or one that is no UTF-8; the network's
                logits are not finite.
            TypeError: a value of another type.
        """
        prompts = texts_of("prompt", prompt)
        for each in prompts:
            for note in self.unread(each):
                warnings.warn(note, stacklevel=2)
        sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed)
        pieces = self.stream(prompts, sampling, max_new_tokens=max_new_tokens, stop=stop)
        texts = joined(pieces, len(prompts))
        return texts[0] if isinstance(prompt, str) else texts

    def stream(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        max_new_tokens: int = 200,
        stop: str | Sequence[str] | None = (),
        samples: int = 1,
    ) -> Iterator[Piece]:
        """What `generate` gives, in pieces as they come, with `samples` rows for each prompt.

        Raises:
            UserError, TypeError: as `generate`, before the first piece.
        """
        prompts = texts_of("prompt", prompts)
        require_whole("--max_new_tokens", max_new_tokens, at_least=1)
        require_whole("--samples", samples, at_least=1)
        stop = [] if stop is None else texts_of("stop", stop)
        if "" in stop:
            raise UserError("--stop is empty: give a string that the text ends before")
        if not prompts:
            raise UserError("no prompt: give at least one; an empty one begins a document")
        return stream_texts(
            self.network,
            self.tokenizer,
            prompts,
            sampling,
            max_new_tokens=max_new_tokens,
            max_length=self.max_length,
            stop=stop,
            samples=samples,
        )

    def unread(self, prompt: str) -> list[str]:
        """Which part of a prompt the model does not see, in one sentence each."""
        require_text("prompt", prompt)
        tokenizer, seen = self.tokenizer, self.max_length
        ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        unknown = ids.count(tokenizer.unk_id) if tokenizer.unk_id is not None else 0
        notes = []
        if unknown:
            notes.append(f"{unknown:,} of the prompt's tokens are unknown to the model's tokenizer")
        if len(ids) > seen:
            notes.append(f"of the prompt's {len(ids):,} tokens the model sees the last {seen:,}")
        return notes

    def score(self, text: str, *, ends: bool = False) -> TextScore:
        """How likely the model finds a text: its loss, bits a byte, each token's log-probability.

        Args:
            text: at least one character.
            ends: count the end token too, as `validate` does: the text is a whole document.

        Raises:
            UserError: the text is empty or no UTF-8; the network's logits are not finite.
            TypeError: it is no string.
        """
        return score_text(self.network, self.tokenizer, text, max_length=self.max_length, ends=ends)

    def export(
        self,
        output: str | os.PathLike[str],
        *,
        format: Format = "huggingface",
        dtype: Dtype = "F32",
        overwrite: bool = False,
    ) -> None:
        """Write a folder that transformers loads, or a GGUF file; see `pretrained/export.py`.

        Args:
            output: the folder or file, which must not exist.
            format: "huggingface" or "gguf".
            dtype: "F32", "F16" or "Q8_0", of a GGUF file's matrices.
            overwrite: replace an older export.

        Raises:
            UserError: there is something at `output`, it cannot be written, or the format cannot
                hold this network.
        """
        require_possible(Path(output), format, dtype, overwrite)  # before anything is measured
        evaluation = measure(self.pretrained) if format == "huggingface" else None
        export(
            self.pretrained,
            output,
            format=format,
            dtype=dtype,
            overwrite=overwrite,
            evaluation=evaluation,
        )


def _moved(network: DecoderLM, device: str | None) -> DecoderLM:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        if place.type == "meta":  # tensors without numbers
            raise RuntimeError
        return network.to(place)
    except (RuntimeError, AssertionError, TypeError):  # torch built without CUDA asserts
        raise UserError(
            f"--device {device} cannot be used on this machine; give cpu, or leave it out"
        ) from None
