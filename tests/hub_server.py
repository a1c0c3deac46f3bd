"""A small Hub on this machine: enough of its API for data sets to be downloaded, with faults."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = b"---\nlicense: mit\n---\n"


class Hub(ThreadingHTTPServer):
    """Has the same files in every data set that is named in `faults`.

    Attributes:
        files: content of each, by its path.
        faults: by the name of a data set, what answers its requests in place of the server: called
            with the handler, the path of the file that is asked for ("" for all else) and how often
            it was asked for by this method; true if it has answered or broken off.
        asked: how often each method and path was asked for.
        ended: set when the server ends, which lets answers go that stall.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], faults: dict[str, "Fault"]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults = {"README.md": CARD, **files}, faults
        self.asked = Counter[tuple[str, str]]()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on screen."""

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked[self.command, path] += 1
        parts = path.removeprefix("/api").split("/")[2:]  # owner, name, and what is asked
        name, rest = "/".join(parts[:2]), parts[2:]
        is_file = rest[:1] == ["resolve"]
        file = "/".join(rest[2:]) if is_file else ""
        if name not in hub.faults:
            code = {"X-Error-Code": "RepoNotFound"}
            self.answer(404, b'{"error": "Repository not found"}', code)
        elif hub.faults[name](self, file, hub.asked[self.command, path]):
            pass
        elif is_file and file not in hub.files:
            self.answer(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
        elif is_file:
            self.send_content(hub.files[file])
        elif rest[:1] == ["tree"]:
            self.answer(200, json.dumps(listed(hub.files, "/".join(rest[2:]))).encode())
        else:
            about = {"id": name, "sha": COMMIT, "private": False, "gated": False, "tags": []}
            about |= {"siblings": [{"rfilename": each} for each in hub.files]}
            self.answer(200, json.dumps(about).encode())

    do_HEAD = do_GET

    def send_content(self, content: bytes, upto: int | None = None) -> None:
        """The file, or the rest that is asked for; with `upto`, its bytes up to there alone."""
        asked = self.headers.get("Range")
        first = int((asked or "bytes=0-").partition("=")[2].partition("-")[0])
        size = len(content)
        headers = {"ETag": f'"{sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        self.send_head(206 if asked else 200, headers, size - first)
        if self.command != "HEAD":
            self.wfile.write(content[first:upto])

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_head(status, headers or {}, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        own = {"X-Repo-Commit": COMMIT, "Content-Length": str(length)}
        for name, value in (own | headers).items():
            self.send_header(name, value)
        self.end_headers()


Fault = Callable[[Handler, str, int], bool]


def listed(files: dict[str, bytes], under: str) -> list[dict[str, Any]]:
    """The files and folders right in a folder."""
    start = f"{under}/" if under else ""
    inside = {name: name.removeprefix(start) for name in files if name.startswith(start)}
    folders = {name.partition("/")[0] for name in inside.values() if "/" in name}
    return [
        *(
            {"type": "directory", "path": start + name, "oid": COMMIT, "size": 0}
            for name in folders
        ),
        *(
            {"type": "file", "path": name, "oid": COMMIT, "size": len(files[name])}
            for name, its in inside.items()
            if "/" not in its
        ),
    ]


# Faults -------------------------------------------------------------------------------------------


def none(handler: Handler, file: str, times: int) -> bool:
    return False


def breaks_off(at: int, often: int) -> Fault:
    """So many downloads of a data file end after so many bytes."""

    def fault(handler: Handler, file: str, times: int) -> bool:
        if handler.command != "GET" or not file.startswith("data/") or times > often:
            return False
        handler.send_content(handler.server.files[file], upto=at)
        handler.close_connection = True
        handler.connection.shutdown(SHUT_RDWR)
        return True

    return fault


def stalls(handler: Handler, file: str, times: int) -> bool:
    """Data files begin, and nothing more comes."""
    if handler.command != "GET" or not file.startswith("data/"):
        return False
    handler.send_content(handler.server.files[file], upto=10)
    handler.server.ended.wait(60)
    handler.close_connection = True
    return True


def refuses(status: int, often: int, only: str = "", **headers: str) -> Fault:
    """The first so many requests for each thing, or each file in a folder, get this status."""

    def fault(handler: Handler, file: str, times: int) -> bool:
        if times > often or not file.startswith(only):
            return False
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.answer(status, b'{"error": "refused"}', named)
        return True

    return fault


@contextmanager
def serving(files: dict[str, bytes], faults: dict[str, Fault]) -> Iterator[Hub]:
    hub = Hub(files, faults)
    thread = threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        hub.shutdown()
        hub.server_close()
        thread.join(5)
