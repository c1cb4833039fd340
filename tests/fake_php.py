"""Dafne's PHP server with its calls for merging, as DAFNE.md section 2 tells of it; a step of a FakeServer.

Statuses and their order are the PHP server's: in merging a malformed type or name comes before a wrong key, which is
401 as is a key without the right; an upload that is not there is 404, an unknown version 500. A merged model comes in
one piece, since parts are joined for uploads only, and becomes the version of the server's second.
"""

import hashlib
import json
import re

from fake_dafne import FakePhp, form_of
from fake_servers import answer

__all__ = ["OPERATOR", "SITE", "MergingPhp"]

SITE, OPERATOR = "site-key", "operator-key"
NO_KEY = 401, {"message": "invalid access code"}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class MergingPhp:
    """One type with one version; `versions` and `kept` (uploads) are name to bytes, `description` is its model.json.

    `post_bytes` is the longest body: of a longer one PHP sees no field, so no key.
    """

    def __init__(self, model_type, versions, description=(), *, clock, post_bytes=10**9):
        self.type, self.versions, self.description = model_type, dict(versions), dict(description)
        self.clock, self.post_bytes = clock, post_bytes
        self.uploads = FakePhp(clock, post_bytes=post_bytes)
        self.lock = self.uploads.lock

    @property
    def kept(self):
        return self.uploads.kept

    def __call__(self, handler):
        with self.lock:
            status, content = self.take(handler)
        if isinstance(content, bytes):
            answer(content, status, headers=[("X-SHA256-Checksum", sha256(content))])(handler)
        else:
            answer(json.dumps(content).encode(), status)(handler)

    def take(self, handler):
        call = handler.path.strip("/")
        if call == "upload_model":
            return self.uploads.take(handler)
        if len(handler.body) > self.post_bytes:
            return NO_KEY
        body = form_of(handler) if call == "upload_merged_model" else json.loads(handler.body)
        if call in ("info_model", "get_model"):
            return getattr(self, call)(body) if body["api_key"] in (SITE, OPERATOR) else NO_KEY
        return self.merging(call, body)

    def info_model(self, body):
        if not re.fullmatch(r"[A-Za-z0-9() -]+", body["model_type"]):
            return 400, {"message": "invalid model type"}
        if body["model_type"] != self.type:
            return 404, {"message": "unknown model type"}
        stamps = sorted(self.versions)
        hashes = {stamp: sha256(content) for stamp, content in self.versions.items()}
        latest = {"latest_timestamp": stamps[-1], "hash": hashes[stamps[-1]], "latest_size": 1}
        return 200, {**latest, "hashes": hashes, "timestamps": stamps, **self.description}

    def get_model(self, body):
        if not re.fullmatch(r"\d+", body["timestamp"]):
            return 400, {"message": "invalid parameters"}
        if body["timestamp"] not in self.versions:
            return 500, {"message": "invalid model - not found"}
        return 200, self.versions[body["timestamp"]]

    def merging(self, call, body):
        names_one = call in ("download_upload", "delete_upload")
        filename = body["filename"] if names_one else "1_any.model"
        if not re.fullmatch(r"[A-Za-z0-9() -]+", body["model_type"]) or not re.fullmatch(r"\d+_\w+\.model", filename):
            return 400, {"message": "invalid parameters"}
        if body["api_key"] != OPERATOR:
            return NO_KEY
        if body["model_type"] != self.type:
            return 404, {"message": "unknown model type"}
        if names_one and filename not in self.kept:
            return 404, {"message": "file not found"}
        return getattr(self, call)(body)

    def get_pending_uploads(self, body):
        listed = [
            {
                "filename": name,
                "timestamp": name.partition("_")[0],
                "username": name.partition("_")[2].removesuffix(".model"),
                "size": len(content),
                "hash": sha256(content),
            }
            for name, content in self.kept.items()
        ]
        return 200, {"uploads": sorted(listed, key=lambda one: one["timestamp"])}

    def download_upload(self, body):
        return 200, self.kept[body["filename"]]

    def delete_upload(self, body):
        del self.kept[body["filename"]]
        return 200, {"message": "deleted successfully"}

    def upload_merged_model(self, form):
        announced = form.get("sha256", "").strip()
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", announced):
            return 400, {"message": "sha256 field is required (64-char hex digest)"}
        if sha256(form["model_binary"]) != announced:
            return 422, {"message": "SHA-256 checksum mismatch - upload corrupted or tampered"}
        version = int(self.clock())
        self.versions[str(version)] = form["model_binary"]
        return 200, {"message": "merged model uploaded successfully", "timestamp": version}
