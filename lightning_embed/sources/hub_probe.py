"""Is the Hub there at all? One connection, so that a machine without a network learns it at once.

The Hub's client retries for more than 20 seconds before it gives up, and the time-out of its calls
is not one of the whole call: `HfApi().dataset_info(name, timeout=3)` (huggingface_hub 2.4) returns
after 6 s from a host that accepts and never answers, after 33 s from one that sends a line a
second, and after 40 s where looking up the name hangs. So a connection is tried here, in a thread
that is waited for no longer than 3 seconds.
"""

from __future__ import annotations

import os
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from lightning_embed.errors import UserError

TIMEOUT_SECONDS = 3.0


def require_hub(name: str, way_out: str) -> None:
    """Return when the Hub can be reached, or when `HF_HUB_OFFLINE` says not to try.

    `name` is what the user wanted from there and `way_out` the flag that does without it, for
    example `--data.files`. Raises UserError, one line, within 4 seconds.
    """
    if _is_set("HF_HUB_OFFLINE") or _is_set("HF_DATASETS_OFFLINE"):
        return  # the client then answers from its cache, or fails, without a connection
    if not _answers(*_address()):
        raise UserError(
            f"no network: {name!r} would come from the Hugging Face Hub, which does not answer; "
            f"set HF_HUB_OFFLINE=1 if it was downloaded before, or give a local file with {way_out}"
        )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _address() -> tuple[str, int]:
    """Host and port of the first machine a request would go to."""
    from huggingface_hub.constants import ENDPOINT

    url = urlsplit(ENDPOINT)
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def _answers(host: str, port: int) -> bool:
    """Whether a connection opens in time; in a thread, as looking up a name has no time-out."""
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=TIMEOUT_SECONDS).close()
            answered.set()
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return answered.is_set()
