"""Dafne's two stock servers as far as uploads go, with the hazards that DAFNE.md section 2 tells of.

Each is a step of a FakeServer. `kept` is what the operator finds: the server's names and the bytes.
"""

import hashlib
import json
import re
import threading
import time

from fake_servers import answer

__all__ = ["FakeFastApi", "FakePhp", "corrupted", "form_of", "unanswered"]

MISMATCH = "Communication error during upload"


def form_of(handler):
    """The fields of a multipart form; the file as bytes under `model_binary`."""
    boundary = b"--" + handler.headers["Content-Type"].partition("boundary=")[2].encode()
    form = {}
    for piece in handler.body.split(boundary)[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)[1].decode()
        form[name] = content[:-2] if name == "model_binary" else content[:-2].decode()
    return form


class _Stock:
    """`info` is what info_model answers beyond what both do; `clock` is the server's, in seconds."""

    def __init__(self, clock=time.time, **info):
        self.kept, self.clock, self.lock = {}, clock, threading.Lock()
        listed = {"latest_timestamp": "1", "hash": "a" * 64, "hashes": {"1": "a" * 64}, "timestamps": ["1"]}
        self.info = {**listed, **info}

    def __call__(self, handler):
        with self.lock:
            status, document = self.take(handler)
        answer(json.dumps(document).encode(), status)(handler)

    def keep(self, content, announced):
        """Store as both servers do; the digest is looked at afterwards."""
        name = f"{int(self.clock())}_site.model"
        self.kept[name] = content
        return name, announced in ("", hashlib.sha256(content).hexdigest())


class FakePhp(_Stock):
    """The PHP server: parts in a folder per file name, joined with the last one; a body that is too long is 401.

    `joins_parts` False: as before April 2026.
    """

    def __init__(self, clock=time.time, post_bytes=10**9, file_bytes=10**9, joins_parts=True):
        super().__init__(clock, latest_size=3)
        self.parts, self.post_bytes, self.file_bytes, self.joins_parts = {}, post_bytes, file_bytes, joins_parts

    def take(self, handler):
        if handler.path == "/info_model":
            return 200, self.info
        if len(handler.body) > self.post_bytes:  # PHP then has no fields at all, so no key
            return 401, {"message": "invalid access code"}
        form = form_of(handler)
        if len(form["model_binary"]) > self.file_bytes:
            return 400, {"message": "file upload error"}
        total = int(form.get("total_chunks", 1)) if self.joins_parts else 1
        content = form["model_binary"]
        if total > 1:
            folder = self.parts.setdefault(form["filename"], {})
            folder[int(form["chunk_index"])] = content
            if int(form["chunk_index"]) < total - 1:
                return 200, {"message": "chunk received"}
            missing = [index for index in range(total) if index not in folder]
            if missing:
                return 500, {"message": f"missing chunk {missing[0]}"}
            del self.parts[form["filename"]]
            content = b"".join(folder[index] for index in range(total))
        name, fits = self.keep(content, form.get("original_hash", ""))
        if fits:
            return 200, {"message": "upload successful"}
        del self.kept[name]
        return 500, {"message": MISMATCH}


class FakeFastApi(_Stock):
    """The FastAPI server: knows no parts, keeps what does not fit, and says so with 200."""

    def take(self, handler):
        if handler.path == "/info_model":
            return 200, self.info
        form = form_of(handler)
        _, fits = self.keep(form["model_binary"], form.get("original_hash", ""))
        return 200, {"message": "upload successful"} if fits else [{"message": MISMATCH}, 500]


def unanswered(stock):
    """The server does it, and the answer is lost on its way."""

    def step(handler):
        with stock.lock:
            stock.take(handler)
        handler.connection.close()

    return step


def corrupted(stock):
    """A bit of the file changes on its way."""

    def step(handler):
        place = handler.body.index(b"application/octet-stream\r\n\r\n") + 28
        handler.body = handler.body[:place] + bytes([handler.body[place] ^ 1]) + handler.body[place + 1 :]
        stock(handler)

    return step
