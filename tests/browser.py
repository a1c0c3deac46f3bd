"""A headless Chromium, driven over its DevTools protocol, and a TensorBoard for it to look at."""

import asyncio
import base64
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = next((path for path in map(shutil.which, NAMES) if path), None)
WITHOUT_BROWSER = "no chromium on PATH"
ROOM = 256 * 2**20  # bytes of an answer, at most
# All text that a page shows, also inside of elements with a tree of their own.
TEXT = """(() => {
  const words = [];
  const walk = node => {
    if (node === null) return;  // nothing was loaded yet
    if (node.nodeType === Node.TEXT_NODE) {
      if (node.data.trim()) words.push(node.data.trim());
    } else if (!["SCRIPT", "STYLE", "TEMPLATE"].includes(node.nodeName)) {
      if (node.nodeType === Node.ELEMENT_NODE && node.getClientRects().length === 0
          && getComputedStyle(node).display === "none") return;
      if (node.value && node.nodeName === "INPUT") words.push(node.value);
      if (node.shadowRoot) walk(node.shadowRoot);
      if (node.nodeName === "IFRAME" && node.contentDocument) walk(node.contentDocument.body);
      node.childNodes.forEach(walk);
    }
  };
  walk(document.body);
  return words.join("\\n");
})()"""


class Page:
    """One page; `text`, `picture` and `evaluate` ask it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, loop: Any) -> None:
        self._socket, self._loop, self._number = socket, loop, 0
        self.requested: list[str] = []  # addresses that the page asked for

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._loop.run_until_complete(self._call(method, parameters))
        return found

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            said = await asyncio.wait_for(self._socket.receive_json(), 60)
            if said.get("method") == "Network.requestWillBeSent":
                self.requested.append(said["params"]["request"]["url"])
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])

    def open(self, address: str, width: int = 1400, height: int = 1000, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Network.enable")
        self.call("Page.enable")
        self.call("Page.navigate", url="about:blank")  # else a new fragment alone loads nothing
        self.call("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self) -> str:
        return str(self.evaluate(TEXT))

    def wait_for(self, *words: str, seconds: float = 60) -> str:
        """The page's text once all words are in it."""
        end = time.monotonic() + seconds
        while True:
            text = self.text()
            missing = [word for word in words if word not in text]
            if not missing:
                return text
            assert time.monotonic() < end, f"the page never showed {missing}:\n{text}"
            time.sleep(0.3)

    def type(self, words: str) -> None:
        """Into what has the focus."""
        for letter in words:
            for kind in ("keyDown", "keyUp"):
                text = {"text": letter} if kind == "keyDown" else {}
                self.call("Input.dispatchKeyEvent", type=kind, key=letter, **text)

    def picture(self) -> bytes:
        """As a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """A browser with an empty page; it keeps its files in `folder`."""
    assert FOUND is not None, WITHOUT_BROWSER
    options = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run")
    drawing = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars")
    where = ("--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank")
    process = subprocess.Popen(
        [FOUND, *options, *drawing, *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    loop = asyncio.new_event_loop()
    try:
        port = int(_written(folder / "DevToolsActivePort", process).split()[0])
        session = loop.run_until_complete(_session())
        try:
            socket = loop.run_until_complete(_first_page(session, port))
            yield Page(socket, loop)
        finally:
            loop.run_until_complete(session.close())
    finally:
        loop.close()
        process.terminate()
        process.wait(30)


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _first_page(session: aiohttp.ClientSession, port: int) -> aiohttp.ClientWebSocketResponse:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        pages = [x for x in await answer.json() if x["type"] == "page"]
    return await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=ROOM)


def _written(file: Path, process: "subprocess.Popen[Any]", seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while not (file.exists() and file.read_text().strip()):
        assert process.poll() is None, f"ended before it wrote {file.name}"
        assert time.monotonic() < end, f"{file.name} was never written"
        time.sleep(0.1)
    return file.read_text()


@contextmanager
def tensorboard(logdir: Path, folder: Path) -> Iterator[str]:
    """A TensorBoard of `logdir`, and its address; it writes its log into `folder`."""
    log = folder / "tensorboard.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", "0"]
    with open(log, "w") as out:
        process = subprocess.Popen(
            [*command, "--bind_all", "--window_title", "runs"], stdout=out, stderr=out
        )
        try:
            end = time.monotonic() + 120
            while "http://" not in log.read_text():
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.2)
            address = log.read_text().partition("http://")[2].split()[0]
            port = address.rpartition(":")[2].strip("/")
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(30)
