"""The model card of an exported folder: what it was trained on and how, how good it is, how to use
and evaluate it. It says what the checkpoint says; no path of this machine stands in it.
"""

import platform
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

import torch

from lightning_embed.console import short
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained.held_out import HeldOut, run_settings
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.tokens.trained import TRAINED

LINE = 96  # characters of a command's line

# Of `fit`, beside the model's: what of the trainer's settings changes the weights
TRAINER = ("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")

STDLIB = (
    "The source code of Python's own standard library, functions and classes, under the Python"
    " Software Foundation License Version 2 (PSF-2.0). None of it is in this folder."
)

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
---

# A {parameters} parameter language model

A decoder of the shape of {family}, float32: {n_layers} of width {d_model}, {n_heads},
a vocabulary of {vocabulary:,}, trained {start} with lightning_embed{version} on windows of
{max_length} tokens.
"""

USE = """
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
inputs = tokenizer("def read", return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=100, do_sample=True, temperature=0.8, top_k=50)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
```

The tokenizer puts `<s>` before each text; names of special tokens in a text, such as `<pad>`,
are text. Load the weights as float32: bfloat16 moves logits by 0.05 to 0.1. Padding, id {pad}, was
never predicted in training; its logit is 0 here, so `generation_config.json` suppresses it. A
batch may be padded on the left.

## Evaluate

With [lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness); without
`add_bos_token=False` it would put a second `<s>` before each text:

```
lm_eval --model hf --model_args pretrained=FOLDER,dtype=float32,add_bos_token=False \\
    --tasks wikitext --batch_size 8
```
"""


def model_card(pretrained: Pretrained, held_out: HeldOut | None) -> str:
    """The content of README.md."""
    network, about = pretrained.network, pretrained.about
    start = _start(about)
    head = HEAD.format(
        parameters=short(sum(p.numel() for p in network.parameters())),
        family="Qwen3" if pretrained.settings["qk_norm"] else "Llama",
        vocabulary=pretrained.tokenizer.vocab_size,
        start=f"further from the weights of `{start}`" if start else "from scratch",
        version=_version(),
        max_length=pretrained.max_length,
        d_model=pretrained.settings["d_model"],
        n_layers=_counted(pretrained.settings["n_layers"], "layer"),
        n_heads=_counted(pretrained.settings["n_heads"], "head"),
    )
    parts = [head]
    if about.get("data"):
        parts += [_data(about, held_out), _quality(held_out), _training(about)]
    return "".join(parts) + USE.format(pad=pretrained.tokenizer.pad_id)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _version() -> str:
    try:
        return f" {version('lightning_embed')}"
    except PackageNotFoundError:
        return ""


def _start(about: dict[str, Any]) -> str:
    """The name of what the run began with, `--init_from`; empty for one from scratch."""
    return PurePath(str(run_settings(about).get("init_from") or "")).name


def _data(about: dict[str, Any], held_out: HeldOut | None) -> str:
    asked = about["data"].get("asked", {})
    if asked.get("source") == "StdlibCorpus":
        text = STDLIB
    elif asked.get("source") == "Mixed":
        text = f"A mixture of {_sources(about['data'])}."
        text += " Their licences are for whoever publishes this model to say."
    else:
        text = f"Text given with `{shlex.join(_text_flags(asked)) or asked.get('source')}`."
        text += " Its licence is for whoever publishes this model to say."
    if held_out is not None:
        text += f" Held out: {held_out.documents:,} documents of {held_out.text}."
    if start := _start(about):
        text += (
            f" Its training began with the weights of `{start}`, whose own text is not named here."
        )
    return f"\n## Data\n\n{text}\n"


def _sources(data: dict[str, Any]) -> str:
    """Names and shares of a mixture, without the folders of this machine."""
    if mix := data.get("plan", {}).get("mix"):
        shares = ", ".join(f"{name} {100 * share:.4g} %" for name, share in mix.items())
        return f"named texts, by real tokens asked for: {shares}"
    text = str(data.get("asked", {}).get("text", "")).removeprefix("--data.sources ")
    names = [part.partition(": ")[0] for part in text.split("; ") if ": " in part]
    return f"the texts {', '.join(names)}, each as much as there is" if names else "several texts"


LOSSY_PARAGRAPH = (
    "The tokenizer does not keep all of a text, and bits a byte leave out what it loses: they"
    " compare only with those of models that have this tokenizer.\n\n"
)


def _quality(held_out: HeldOut | None) -> str:
    if held_out is None:
        return "\n## Quality\n\nNot measured: the held-out text was not at hand.\n"
    part = "all" if held_out.tokens == held_out.whole else f"{held_out.tokens:,}"
    return (
        f"\n## Quality\n\nOver {part} of {held_out.whole:,} held-out tokens, that no training step"
        " saw:\n\n| loss, nats a token | bits a byte | accuracy |\n|---|---|---|\n"
        f"| {held_out.loss:.4f} | {held_out.bits_per_byte:.4f} | {held_out.accuracy:.4f} |\n\n"
        f"{'' if held_out.keeps_text else LOSSY_PARAGRAPH}"
        f"In transformers the loss is {held_out.shift:.1e} nats higher: padding's logit is 0 there."
        "\n"
    )


def _training(about: dict[str, Any]) -> str:
    seed = about["data"].get("plan", {}).get("seed")
    best = about.get("best", {}).get("best_step")
    chosen = ", the best validation of the run so far" if best == about.get("steps") else ""
    command = _folded(command_of(about))
    return (
        f"\n## Training\n\n{about.get('steps', 0):,} steps{chosen}; seed {seed}; torch"
        f" {torch.__version__} and Python {platform.python_version()} wrote this folder. The"
        f" command, with every setting that decides the weights:\n\n```\n{command}\n```\n"
    )


def command_of(about: dict[str, Any]) -> list[str]:
    """The words of a command that trains the same again."""
    data, hyper = about["data"], about["hyper_parameters"]
    asked, plan = data.get("asked", {}), dict(data.get("plan", {}))
    seed = plan.pop("seed", None)
    own = DecoderLM.settings()
    left_out = ("vocab_size", "max_length")  # which follow from the data
    model = {k: v for k, v in hyper.items() if k not in left_out and (k not in own or v != own[k])}
    trainer = {k: about.get("trainer", {}).get(k) for k in TRAINER}
    words = ["python", "train.py", "fit", *_text_flags(asked)]
    words += _flags("", {"seed_everything": seed})
    start = _start(about)  # which brings its tokenizer
    tokens = {} if start else {k: asked.get(k) for k in ("tokenizer", "vocab_size")}
    words += _flags("data.", tokens | plan)
    words += _flags("model.", model)
    words += _flags("trainer.", trainer | {"max_steps": about.get("steps")})
    return words + _flags("", {"init_from": start or None})


def _text_flags(asked: dict[str, Any]) -> list[str]:
    """The text as it was named, without the folders of this machine."""
    kind, _, rest = str(asked.get("text", "")).partition(" ")
    if kind == "--data.files":
        patterns = rest.partition(" (column")[0].split(", ")
        return [word for path in patterns for word in (kind, PurePath(path).name)]
    return [kind, rest.partition(" ")[0]] if kind == "--data.hub" else []


def _flags(section: str, settings: dict[str, Any]) -> list[str]:
    words = []
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, tuple | list):
            value = f"[{','.join(map(str, value))}]"
        elif isinstance(value, bool):
            value = str(value).lower()
        elif name == "tokenizer" and value not in TRAINED:
            value = "tokenizer.json"
        words += [f"--{section}{name}", str(value)]
    return words


def _folded(words: list[str]) -> str:
    """A command on lines of at most `LINE` characters, broken before options."""
    lines = [""]
    for word in words:
        quoted = shlex.quote(word)
        if word.startswith("--") and len(lines[-1]) + len(quoted) > LINE - 20:
            lines.append("   ")
        lines[-1] += f" {quoted}" if lines[-1] else quoted
    return " \\\n".join(lines)
