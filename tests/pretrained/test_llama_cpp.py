"""GGUF files in llama.cpp itself: the server in the wheel of xllamacpp, asked over HTTP on this
machine. It gives the logarithms of probabilities of all ids; padding's logit is 0 there, so that
logits are their differences from padding's.
"""

import json
import random
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_shapes import SHAPES, bpe, pretrained
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained.export import export
from lightning_embed.pretrained.gguf import Dtype
from lightning_embed.pretrained.llama_cpp_tokens import AWKWARD, KNOWN
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.sources.source import About
from lightning_embed.sources.stdlib import StdlibCorpus
from lightning_embed.tokens.tokenizer import TextTokenizer, cut_by

Build = Callable[..., DecoderLM]
Ask = Callable[..., Any]

CLOSE = 1e-4
NO_END = [[2, False]]  # </s> is not drawn, so that texts go on

pytestmark = pytest.mark.slow


@contextmanager
def served(file: Path) -> Iterator[Ask]:
    """A function that asks a path of llama.cpp's server. One thread, a float32 cache of keys and
    values, flash attention off."""
    llama_cpp = pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    params = llama_cpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel = 1
    params.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = llama_cpp.ggml_type.GGML_TYPE_F32
    params.cpuparams.n_threads = 1
    server = llama_cpp.Server(params)

    def ask(path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    yield ask


def gguf(given: Pretrained, folder: Path, dtype: Dtype = "F32") -> Path:
    pytest.importorskip("gguf")
    return export(given, folder / "model.gguf", format="gguf", dtype=dtype)


def logits_of(ask: Ask, ids: list[int], given: Pretrained) -> torch.Tensor:
    """The logits `(V)` of what follows some ids."""
    size = given.tokenizer.vocab_size
    (letter,) = given.tokenizer.encode("a")  # no part of a character, which would be held back
    options = {"n_predict": 1, "n_probs": size, "logit_bias": [[letter, 1000]]}
    (step,) = ask("/completion", prompt=ids, **options)["completion_probabilities"]
    logits = torch.full((size,), torch.nan, dtype=torch.double)
    for entry in step["top_logprobs"]:
        logits[entry["id"]] = entry["logprob"]
    return logits - logits[1]


@torch.no_grad()
def own_greedy(network: DecoderLM, ids: list[int], count: int) -> tuple[list[int], torch.Tensor]:
    """The most likely ids and all logits `(T, V)`, by whole passes over the text."""
    for _ in range(count):
        last = network(torch.tensor([ids]))[0, -1]
        last[2] = -torch.inf
        ids = [*ids, int(last.argmax())]
    return ids, network(torch.tensor([ids]))[0].double()


@pytest.mark.parametrize("shape", SHAPES)
def test_it_computes_the_same(tiny_lm: Build, tmp_path: Path, shape: str) -> None:
    """Logits up to position 200, and the ids that are most likely, with a cache."""
    given = pretrained(tiny_lm, shape, bpe(portable=True))
    prompt = [0, *given.tokenizer.encode("def read")]
    ids, own = own_greedy(given.network, prompt, 200)
    words = [i for i in range(own.shape[1]) if i != 1]
    with served(gguf(given, tmp_path)) as ask:
        options = {"temperature": 0, "return_tokens": True, "logit_bias": NO_END}
        assert ask("/completion", prompt=prompt, n_predict=200, **options)["tokens"] == ids[3:]
        for last in range(0, len(ids), 8):
            logits = logits_of(ask, ids[: last + 1], given)
            assert (logits - own[last])[words].abs().max() < CLOSE


@pytest.mark.parametrize(("dtype", "close"), [("F16", 0.02), ("Q8_0", 0.5)])
def test_smaller_matrices_compute_nearly_the_same(
    tiny_lm: Build, tmp_path: Path, dtype: Dtype, close: float
) -> None:
    given = pretrained(tiny_lm, "tied", bpe(portable=True))
    ids = [0, *given.tokenizer.encode("def read")]
    _, own = own_greedy(given.network, ids, 0)
    words = [i for i in range(own.shape[1]) if i != 1]
    with served(gguf(given, tmp_path, dtype)) as ask:
        off = (logits_of(ask, ids, given) - own[-1])[words].abs().max()
    assert CLOSE < off < close


def test_padding_is_never_drawn(tiny_lm: Build, tmp_path: Path) -> None:
    """In 10,000 draws at a temperature at which, by its logit, it would be in dozens."""
    given = pretrained(tiny_lm, "tied", bpe(portable=True))
    drawn: list[int] = []
    options = {"temperature": 5.0, "samplers": ["temperature"], "logit_bias": NO_END}
    with served(gguf(given, tmp_path)) as ask:
        while len(drawn) < 10_000:
            ask_for = {"prompt": [0], "n_predict": 250, "seed": len(drawn), "return_tokens": True}
            drawn += ask("/completion", **ask_for, **options)["tokens"]
    assert 1 not in drawn
    assert {0, 3} < set(drawn)  # of its neighbours, whose logits are like its own


@pytest.mark.parametrize("name", KNOWN)
def test_texts_get_the_ids_that_are_expected_of_it(
    tiny_lm: Build, tmp_path: Path, name: str
) -> None:
    """Each way to cut text, with merges learned in its own pieces: code, digits of several scripts,
    random characters. This is what refusing other tokenizers rests on."""
    code = [
        document.text
        for _, document in zip(range(100), StdlibCorpus().documents(About()), strict=False)
    ]
    draw = random.Random(0)
    digits = ["0123456789", "\u0660\u0661\u0662\u0663", "\uff10\uff11\uff12\uff13", "²³½0123"]
    numbers = [
        "".join(draw.choices(draw.choice(digits), k=draw.randint(1, 12))) for _ in range(300)
    ]
    signs = "".join(code)[::9] + "".join((*AWKWARD, *numbers)) + "\u0301\u0085\u2028\u3000'' " * 50
    strings = ["".join(draw.choices(signs, k=draw.randint(1, 60))) for _ in range(500)]
    foreign = Tokenizer(models.BPE())
    foreign.pre_tokenizer = cut_by(*KNOWN[name])
    foreign.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    lines = [line for text in (*code, " ".join(numbers)) for line in text.split(" ")]
    foreign.train_from_iterator([*lines, *code] if name != "superbpe" else lines, trainer)
    given = pretrained(tiny_lm, "llama", TextTokenizer(foreign))
    with served(gguf(given, tmp_path)) as ask:
        for text in (*AWKWARD, *code, *numbers, *strings):
            ids = ask("/tokenize", content=text, add_special=True, parse_special=False)["tokens"]
            assert ids == [0, *given.tokenizer.encode(text)], text
