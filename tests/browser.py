"""A page in headless Chromium, whose every request must pass a proxy of the test that answers none.

Terms: a *look* is the picture of the whole window (rows, columns, RGB) and the hosts that the page asked for.
"""

import shutil
import socket
import subprocess
from contextlib import closing
from dataclasses import dataclass
from threading import Thread
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

__all__ = ["Look", "look_at"]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DARK, LIGHT = 0, 1
WAIT_S = 150
BROWSERS_OWN = {
    "accounts.google.com", "clients2.google.com", "content-autofill.googleapis.com", "edgedl.me.gvt1.com",
    "optimizationguide-pa.googleapis.com", "redirector.gvt1.com", "safebrowsing.googleapis.com",
    "update.googleapis.com", "www.google.com",
}  # fmt: skip
"""What the browser asks for by itself, whatever it shows."""
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    "--disable-extensions", "--disable-domain-reliability", "--no-pings", "--metrics-recording-only",
    "--disable-features=OptimizationHints,MediaRouter,Translate", "--virtual-time-budget=3000",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen, and what was asked for."""

    picture: np.ndarray
    asked: set[str]


class _Proxy:
    """Remembers the hosts that it is asked for, and hangs up."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.asked = set()
        Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return  # the test is over
            with closing(peer):
                peer.settimeout(5)
                try:
                    _, target, _ = peer.recv(4096).split(b"\r\n")[0].decode(errors="replace").split(" ")
                except (OSError, ValueError):
                    continue  # the browser changed its mind
                self.asked.add(urlsplit(target if "//" in target else f"//{target}").hostname or target)


def look_at(page, folder, *, width, height=2400, dark=False):
    """Show a file; the test is skipped where there is no browser."""
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"there is no browser on this machine; install one of {', '.join(PROGRAMS)}")
    picture, proxy = folder / f"{width}-{'dark' if dark else 'light'}.png", _Proxy()
    with closing(proxy.socket):
        command = [
            program, *QUIET, f"--user-data-dir={folder / 'browser'}", f"--proxy-server=127.0.0.1:{port(proxy.socket)}",
            "--proxy-bypass-list=<-loopback>", f"--blink-settings=preferredColorScheme={DARK if dark else LIGHT}",
            f"--window-size={width},{height}", f"--screenshot={picture}", page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, timeout=WAIT_S, check=False)
    assert picture.exists(), done.stderr.decode(errors="replace")[-2000:]
    with Image.open(picture) as image:
        return Look(np.asarray(image.convert("RGB")), proxy.asked - BROWSERS_OWN)


def port(server):
    """That it listens on."""
    return server.getsockname()[1]
