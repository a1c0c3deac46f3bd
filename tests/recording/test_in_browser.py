"""TensorBoard's pages as Chromium shows them: of five runs, one of them killed and resumed."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import FOUND, WITHOUT_BROWSER, Page, browsing, tensorboard
from workshop import Workshop, run_apart

from lightning_embed.figures import PAGES
from lightning_embed.recording import drawings

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason=WITHOUT_BROWSER),
]
RUNS = {  # by name, what differs
    "first": (),
    "wider": ("--model.d_model", "48", "--model.n_heads", "3"),
    "deeper": ("--model.n_layers", "3"),
    "plain adamw": ("--model.optimizer", "adamw"),
    "größer": ("--data.tokens_per_batch", "512"),
}


@pytest.fixture(scope="module")
def address(corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a TensorBoard of the runs."""
    folder = tmp_path_factory.mktemp("browser")
    shop = Workshop(corpus, cache, folder / "runs")
    often = [
        word
        for what in ("loss_watch", "padding_guard")
        for word in (f"--{what}.every_n_steps", "2")
    ]
    every = (*often, "--trainer.log_every_n_steps", "2", "--trainer.val_check_interval", "4")
    every += ("--samples.prompts", '["abc de", ""]', "--checkpoints.every_n_steps", "3")
    every += ("--pages.pictures", "true")
    kill = ("--trainer.callbacks+=workshop.SignalAt", "--trainer.callbacks.step=11")
    limit = ("--trainer.max_steps", "20")
    first = shop.arguments("fit", "--name", "first", *limit, *every)
    where = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    killed = run_apart(*first, *kill, "--trainer.callbacks.signal_name=SIGKILL", environment=where)
    assert killed.status == -signal.SIGKILL, killed.err
    for name, differs in RUNS.items():
        resume = ("--ckpt_path", "last") if name == "first" else ()
        shop.fit(name, *every, *differs, *resume, steps=20)
    with tensorboard(shop.root, folder) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def test_time_series_begin_with_the_loss(page: Page, address: str) -> None:
    page.open(f"{address}#timeseries")
    lines = page.wait_for("/validation", "/gradient_norm", *RUNS).splitlines()
    cards = [line for line in lines if line in ("/train", "/validation", "/gradient_norm")]
    assert cards == ["/train", "/validation", "/gradient_norm"]


def test_custom_scalars_have_the_overview_first(page: Page, address: str) -> None:
    page.open(f"{address}#custom_scalars")
    text = page.wait_for(*PAGES, *PAGES["Overview"], *RUNS)
    lines = text.splitlines()
    assert [line for line in lines if line in PAGES] == list(PAGES)
    assert [line for line in lines if line in PAGES["Overview"]] == list(PAGES["Overview"])


def test_hparams_have_a_row_for_each_run(page: Page, address: str) -> None:
    page.open(f"{address}#hparams", width=2400)
    lines = page.wait_for("held-out bits per byte", "model.d_model", *RUNS).splitlines()
    assert {name: lines.count(name) for name in RUNS} == dict.fromkeys(RUNS, 1)
    assert "48.000" in lines  # the width of one of them


def test_text_tells_prompt_and_continuation_apart(page: Page, address: str) -> None:
    page.open(f"{address}#text")
    page.wait_for("run/1 command and machine", "git revision", "samples")
    text = page.wait_for("samples/0", "Prompt", "abc de", "Continuation", "none: it begins")
    assert "feed_forward.down_proj" in text and "Linear" in text


def test_histograms(page: Page, address: str) -> None:
    page.open(f"{address}#histograms")
    page.wait_for("weights/block 0", "weights/embedding", "weights_gradient", "weights_row_norm")


def test_the_projector_finds_the_padding_vector(page: Page, address: str) -> None:
    page.open(f"{address}#projector")
    page.wait_for("embedding, step 20", "400x32", "Component #1", seconds=120)
    assert page.evaluate(FOCUS)
    page.type("(padding)")
    page.wait_for("1 matches.", "<pad> (padding)", "3  colors")


@pytest.mark.skipif(not drawings.can_draw(), reason="the extra plots is not installed")
def test_images(page: Page, address: str) -> None:
    page.open(f"{address}#images")
    page.wait_for(*(f"pictures/{x}" for x in ("loss by position", "norm by frequency")))


# Puts the cursor into the projector's search, which is in a frame, in trees of its elements.
FOCUS = """(() => {
  const walk = (node, inspecting) => {
    const here = inspecting || node.nodeName === "VZ-PROJECTOR-INSPECTOR-PANEL";
    if (here && node.nodeName === "INPUT" && !node.readOnly) {
      node.focus();
      return true;
    }
    const inside = [...node.childNodes];
    if (node.shadowRoot) inside.unshift(node.shadowRoot);
    if (node.nodeName === "IFRAME") inside.unshift(node.contentDocument.body);
    return inside.some(child => walk(child, here));
  };
  return walk(document.body, false);
})()"""
