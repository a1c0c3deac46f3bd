"""The first and the last lines of a run: what goes in, how good it became, what can be done next.

Results are set beside what `xz -9e` makes of the same text.
"""

import json
import lzma
import math
import shlex
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_embed import figures
from lightning_embed.bar import bar
from lightning_embed.checkpointing.save import Checkpoints
from lightning_embed.console import say, say_command, short
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.evaluation.intervals import FEWEST, ratio_interval
from lightning_embed.evaluation.metrics import Evaluation
from lightning_embed.evaluation.report import PERCENT, Tested, say_checkpoint, say_details
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.padding.padded import row_of
from lightning_embed.processes import command, command_of_all
from lightning_embed.recording.pages import Pages
from lightning_embed.tokens.lossy import LOSSY, ONLY_AMONG_THEMSELVES
from lightning_embed.tokens.prepared import Prepared
from lightning_embed.training.freezing import freeze
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.watching.mixture_table import say_by_name, say_mixture
from lightning_embed.watching.samples import Samples
from lightning_embed.watching.throughput import Throughput

XZ_AT_ONCE = 2**18  # bytes; how long a text takes to be pressed does not depend on it


def say_start(
    trainer: L.Trainer, model: LanguageModel, data: TextDataModule, precision_reason: str
) -> None:
    """What the run is trained on, and with which numbers."""
    prepared = data.prepared
    report = prepared.report
    counts = report.counts
    say(
        "corpus",
        f"{report.title}, {counts['documents']:,} documents, {counts['bytes'] / 1e6:.1f} MB"
        f"  [{prepared.key[:8]}]",
    )
    for note in report.notes:
        say("", note)
    asked, has = report.vocabulary_asked, report.vocabulary
    fewer = f" (the text supports no more than that; asked {asked:,})" if (asked or 0) > has else ""
    say(
        "tokens",
        f"{short(len(prepared.train.tokens))} to train, {short(len(prepared.validation.tokens))}"
        f" held out; vocabulary {has:,}{fewer}; <pad>=1 checked",
    )
    unknown = [report.splits[split].unknown for split in ("train", "validation")]
    if any(unknown):
        say("", "unknown to the tokenizer: {:,} training and {:,} held-out tokens".format(*unknown))
    say_mixture(data)
    threads = torch.get_num_threads()
    processes = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    say(
        "numbers",
        f"{trainer.precision} ({precision_reason}); {model.hparams['optimizer']};"
        f" {threads} thread{'s' if threads > 1 else ''}{processes}",
    )
    if model.hparams["freeze"]:
        _say_frozen(model.hparams, has)


def _say_frozen(hyper: Any, vocab_size: int) -> None:
    parts = hyper["freeze"]
    network = DecoderLM.outline(vocab_size, {key: hyper[key] for key in DecoderLM.settings()})
    freeze(network, parts)
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    names = parts if isinstance(parts, str) else ", ".join(parts)
    say("frozen", f"{names}; {trained:,} of {total:,} parameters are trained")


def say_evaluation(
    found: Evaluation | None,
    data: TextDataModule,
    stage: Literal["validation", "test"] = "validation",
    xz: tuple[float, float] | None = None,
    details: Tested | None = None,
) -> None:
    """Loss, perplexity, accuracy, bits per byte and their interval, and of which text; beside what
    xz needs for it; or, of a `test`, with intervals of all, by source and by position."""
    if found is None:
        say("held out", "not evaluated: --trainer.limit_val_batches or limit_test_batches is 0")
        return
    if details is not None:
        say_checkpoint(details)
    seen, whole = int(found.n_bytes.sum()), data.prepared.report.splits["validation"].bytes
    label, text = "held out", f"of {data.prepared.report.title}: " if data.text.is_other else ""
    if data.text.is_other and not data.prepared.train.documents:
        label, text = "all of" if seen == whole else "part of", text.removeprefix("of ")
    figures_of_it = (
        f"{stage} loss {found.loss:.4f}   perplexity {found.perplexity:.1f}"
        f"   accuracy {found.accuracy:.3f}"
    )
    if text and len(text) + len(figures_of_it) > 71:  # of a line of 80 columns
        say(label, text.rstrip())
        label, text = "", ""
    say(label, f"{text}{figures_of_it}")
    if data.text.is_other:
        for note in data.prepared.report.notes:
            say("", note)
    if data.text.trained_on:
        known = f"{data.text.trained_on:,} of these documents"
        say("note", f"{known} are in the training text as they are")
    if seen < whole:
        say("", f"of {seen:,} of its {whole:,} bytes")
    keeps = data.prepared.report.keeps_text
    say("", f"bits per byte {found.bits_per_byte:.4f}{'' if keeps else LOSSY}")
    if not keeps:
        say("note", ONLY_AMONG_THEMSELVES)
    if details is not None:
        say_details(details)
    elif int((found.n_bytes > 0).sum()) > 1:
        nll, n_bytes = found.nll.numpy(force=True), found.n_bytes.numpy(force=True)
        bits = ratio_interval(nll / math.log(2), n_bytes)
        alike = len(n_bytes.nonzero()[0]) == data.prepared.validation.documents
        over = "documents" if alike and bits.units < FEWEST else "files"
        rough = "" if bits.reliable else ": too few or too unequal, a rough idea"
        say(
            "", f"{PERCENT} over {bits.units} held-out {over} {bits.low:.3f}-{bits.high:.3f}{rough}"
        )
    if xz is not None:
        alone, after = xz  # the second is 0 where the training text holds all of it
        ratio = f": ratio {found.bits_per_byte / after:.3f}" if after > 0 else ""
        say("", f"xz -9e needs {alone:.3f} alone, {after:.4f} after the training text{ratio}")
    if details is None:
        say_by_name(found.by_name)


def xz_bits_per_byte(prepared: Prepared) -> tuple[float, float] | None:
    """Bits a byte that `xz -9e` needs for the held-out text alone, and after the training text.

    The second is size(training + held out) - size(training). None where the text is too long to
    have been kept. Takes seconds, so the result stays beside the tokens.
    """
    files = prepared.train.text_file, prepared.validation.text_file
    if not all(file.is_file() for file in files):
        return None
    kept = prepared.path / "xz.json"
    with suppress(OSError, ValueError, TypeError):  # absent or damaged: measured again
        alone, after = json.loads(kept.read_text(encoding="utf-8"))
        return float(alone), float(after)
    train, held_out = (file.read_bytes() for file in files)

    def size(text: bytes) -> int:
        press, found = lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME), 0
        for at in range(0, len(text), XZ_AT_ONCE):
            found += len(press.compress(text[at : at + XZ_AT_ONCE]))
            advance(min(XZ_AT_ONCE, len(text) - at))
        return found + len(press.flush())

    total = 2 * (len(held_out) + len(train))
    with (
        bar("comparing with xz", total) as advance,
        ThreadPoolExecutor() as pool,  # lzma lets other threads run
    ):
        alone, both, first = pool.map(size, (held_out, train + held_out, train))
    result = 8 * alone / len(held_out), 8 * (both - first) / len(held_out)
    with suppress(OSError):  # a full disk, or a folder of somebody else's
        kept.write_text(json.dumps(result), encoding="utf-8")
    return result


def say_end(
    trainer: L.Trainer,
    model: LanguageModel,
    data: TextDataModule,
    *,
    root: Path,
    resume: str,
    checkpoints: Checkpoints,
    samples: Samples,
    pages: Pages,
    configs: list[str],
    own_text: bool,
) -> None:
    """Evaluate the best weights on everything held out, show a sample, and tell what to do next.

    Args:
        root: folder of all runs.
        resume: the command line that goes on.
        checkpoints: knows the best one, if any validation ran.
        samples: shows its first prompt.
        pages: writes what is made once, of the best weights.
        configs: the configuration files the run was started with.
        own_text: the settings name a text, so nobody needs to be told how.
    """
    _say_speed(trainer)
    steps = trainer.global_step
    best = str(checkpoints.best_path) if checkpoints.best_path.exists() else ""
    best = trainer.strategy.broadcast(best)  # all evaluate the same weights
    if trainer.limit_val_batches:  # which was for the validations in between
        trainer.limit_val_batches = 1.0
    loggers, trainer.loggers = trainer.loggers, []  # its figures have tags of their own
    chosen: dict[str, Any] = {"ckpt_path": best, "weights_only": True} if best else {}
    with pages.last_evaluation(trainer, model, data):
        trainer.validate(model, data, verbose=False, **chosen)
        trainer.loggers = loggers
    found = model.evaluation
    if found is not None:
        told = figures.of_validation(found.scalars, held_out=True)
        figures.log(trainer, told | figures.of_sources(found.by_name, held_out=True), steps)
        for logger in loggers:
            logger.save()  # some write when training ends, which it has
    beside_xz = found and trainer.is_global_zero and data.prepared.report.keeps_text
    xz = xz_bits_per_byte(data.prepared) if beside_xz else None
    say_evaluation(found, data, xz=xz)
    embedding = model.network.embedding
    row = row_of(embedding.weight, embedding.padding_idx or 0)
    whole = row is None or not bool(row.count_nonzero())
    say("padding", f"row {'zero' if whole else 'NOT ZERO'} after {steps} steps")
    if samples.max_new_tokens and samples.can_run(trainer):
        _say_sample(samples.prompts[0] + samples.texts(model)[0])
    size = f"   {_megabytes(checkpoints.best_path):.0f} MB" if best else ""
    say("best", (best or "none, no validation ran; see last.ckpt beside") + size)
    if any(isinstance(logger, TensorBoardLogger) for logger in loggers):
        say_command("watch", shlex.join(["tensorboard", "--logdir", str(root)]))
    say_command("go on", resume)
    if best:
        prompt = [] if own_text else ["--prompt", "def "]
        say_command("more", command("generate", "--checkpoint", best, *prompt))
    if own_text:
        return
    own = [word for file in configs for word in ("--config", file)]
    more = command_of_all("fit", *own, "--name", "mine", "--data.files", "notes/*.md")
    say_command("own text", more)


def _megabytes(path: Path) -> float:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def _say_speed(trainer: L.Trainer) -> None:
    """How fast the whole run was, beside what the device can do."""
    counter = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)  # type: ignore[attr-defined]
    found = counter.whole_run() if counter is not None else {}
    if counter is None or not found:
        return
    parts = [
        f"{short(found['tokens_per_s'])} real tok/s",
        f"padding {100 * found['padding']:.1f} %",
        f"data wait {100 * found['data_wait']:.0f} %",
    ]
    if "mfu" in found:
        done, can = short(found["flops_per_s"]), short(counter.matrix_rate)
        parts.append(f"{done}FLOP/s of {can} measured: MFU {100 * found['mfu']:.0f} %")
    if "peak_memory" in found:
        parts.append(f"peak {found['peak_memory'] / 1e9:.1f} GB")
    say("speed", "   ".join(parts))


def _say_sample(text: str, lines: int = 5) -> None:
    for number, line in enumerate([x for x in text.splitlines() if x.strip()][:lines]):
        say("sample" if number == 0 else "", line[:90])
