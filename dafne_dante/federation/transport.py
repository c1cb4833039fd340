"""Calls to a Dafne federation server over HTTP (DAFNE.md section 2), with nothing of the answer trusted.

Terms: a call is the last part of the URL; JSON calls carry the key in their body, as Dafne's protocol has it.

Invariants
- The API key goes into request bodies only: never into a URL, a message, a log or a representation.
- Plain HTTP is for this machine only, and goes through no proxy; a redirect is never followed, because it could carry
  the key elsewhere.
- Every answer's body is bounded in size and time. A download lands in a temporary file and takes its name only when it
  is complete and its SHA-256 is the expected one.
- Only JSON calls are repeated (doing one twice leaves the server as doing it once), at most twice, and only after a
  failure that may pass: no answer, 502, 503, 504. An upload is never repeated.
"""

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3

from dafne_dante.durable import write_stream_atomically
from dafne_dante.errors import AccessDeniedError, ServerAnswerError, ServerUnreachableError, SettingsError

__all__ = ["HttpTransport", "Transport"]

T = TypeVar("T")

_MAX_JSON_BYTES = 4 * 1024**2
_MAX_FILE_BYTES = 2 * 1024**3
_BLOCK_BYTES = 1 << 16
_TRIES = 3
_FIRST_PAUSE_S = 0.5
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SHORTEST_BYTES_PER_S = 1024
_CHECKSUM = "X-SHA256-Checksum"


class Transport(Protocol):
    """What the client needs of a transport; errors are those of HttpTransport."""

    def ask(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One JSON object for a JSON body."""

    def send(self, call: str, fields: Mapping[str, str], name: str, content: bytes) -> dict[str, Any]:
        """One JSON object for a multipart form with a file `model_binary`."""

    def download(self, call: str, body: Mapping[str, Any], destination: Path, *, sha256: str | None) -> Path:
        """The file that answers a JSON body, written to `destination`."""


class HttpTransport:
    """Dafne's HTTP API at one base URL.

    `timeout_s` is for a connection, for the next bytes in either direction, and for a whole JSON answer; a file may
    take longer as long as it comes at 1 KiB/s or more, up to `max_file_bytes`.

    Raises:
        SettingsError: no URL or key, or plain HTTP to another machine.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float = 60.0,
        max_file_bytes: int = _MAX_FILE_BYTES,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base_url = _checked_url(base_url)
        if not api_key:
            raise SettingsError("expected an API key in settings.toml or DAFNE_DANTE_API_KEY, found none; set one")
        self._api_key, self._timeout_s, self._pause = api_key, timeout_s, pause
        self._max_file_bytes = max_file_bytes
        self._session = requests.Session()
        # A proxy named in the environment would see the key in a plain HTTP call to this machine.
        self._session.trust_env = self._base_url.startswith("https:")
        # Not compressed: what is counted and hashed is then what came over the wire, and nothing can inflate.
        self._session.headers["Accept-Encoding"] = "identity"

    def __repr__(self) -> str:
        return f"HttpTransport({self._base_url!r})"

    def ask(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST a JSON body and return the JSON object of the answer; repeated after failures that may pass.

        Raises:
            ServerUnreachableError: no answer in time.
            AccessDeniedError: 401 or 403.
            ServerAnswerError: any other status, or an answer that is no JSON object or too long.
        """
        return self._repeated(lambda: self._ask_once(call, body))

    def send(self, call: str, fields: Mapping[str, str], name: str, content: bytes) -> dict[str, Any]:
        """POST a multipart form once, never repeated: the server may have taken what it did not acknowledge.

        Raises:
            As `ask`.
        """
        file = (name, content, "application/octet-stream")
        form: dict[str, str | tuple[str, bytes, str]] = {**fields, "api_key": self._api_key, "model_binary": file}
        body, content_type = urllib3.encode_multipart_formdata(form)
        # As a stream it is sent in small blocks, each with the full timeout; bytes would have to go in one.
        with self._answer(call, data=io.BytesIO(body), headers={"Content-Type": content_type}) as response:
            return _json_object(response, self._timeout_s, uploading=True)

    def download(self, call: str, body: Mapping[str, Any], destination: Path, *, sha256: str | None) -> Path:
        """POST a JSON body and write the answer's bytes to `destination`, whole or not at all.

        `sha256` None: the server's own `X-SHA256-Checksum` is checked instead, where it sends one.

        Raises:
            As `ask`; ServerAnswerError also when the bytes do not have the digest `sha256` or are too many.
            StorageError: the disk refuses.
        """
        self._repeated(lambda: self._download_once(call, body, destination, sha256))
        return destination

    def _ask_once(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._answer(call, json={**body, "api_key": self._api_key}) as response:
            return _json_object(response, self._timeout_s)

    def _download_once(self, call: str, body: Mapping[str, Any], destination: Path, sha256: str | None) -> None:
        with self._answer(call, json={**body, "api_key": self._api_key}) as response:
            _check_status(response.status_code, uploading=False)
            write_stream_atomically(destination, lambda stream: self._receive(response, stream, sha256))

    def _receive(self, response: requests.Response, stream: IO[bytes], sha256: str | None) -> None:
        """Copy the answer into `stream` and check its digest: the expected one, else the one that came with it."""
        digest = hashlib.sha256()
        for block in _blocks(response, self._max_file_bytes, self._timeout_s, _SHORTEST_BYTES_PER_S):
            digest.update(block)
            stream.write(block)
        expected = response.headers.get(_CHECKSUM, "").strip().lower() if sha256 is None else sha256
        if expected and digest.hexdigest() != expected:
            raise ServerAnswerError("expected a file with the server's SHA-256, found other bytes; try again")

    @contextmanager
    def _answer(self, call: str, **content: Any) -> Iterator[requests.Response]:
        """The open answer to one POST; a failure of the network until its body becomes ServerUnreachableError."""
        try:
            response = self._session.post(
                self._base_url + call, stream=True, allow_redirects=False, timeout=self._timeout_s, **content
            )
            with response:
                yield response
        except requests.exceptions.SSLError:
            raise ServerUnreachableError(
                "expected a certificate that this machine trusts, found another; "
                "is there a proxy that opens TLS? give its certificate in REQUESTS_CA_BUNDLE"
            ) from None
        except requests.RequestException as error:
            raise _unreachable(error) from None

    def _repeated(self, attempt: Callable[[], T]) -> T:
        for count in range(_TRIES):
            try:
                return attempt()
            except ServerUnreachableError:
                if count == _TRIES - 1:
                    raise
                self._pause(_FIRST_PAUSE_S * 2**count)
        raise AssertionError("unreachable")


def _unreachable(error: Exception) -> ServerUnreachableError:
    # The exception's text may hold the request; its kind says enough.
    return ServerUnreachableError(
        f"no answer from the federation server ({type(error).__name__}); check the address and the network"
    )


def _blocks(
    response: requests.Response, max_bytes: int, timeout_s: float, bytes_per_s: float = float("inf")
) -> Iterator[bytes]:
    """The body as it comes, of at most `max_bytes`, in at most `timeout_s` and the time that `bytes_per_s` takes.

    Read by `read1`, which returns what is there: a read of a fixed size would wait for ever for a server that drips.
    """
    received, begin = 0, time.monotonic()
    try:
        while block := response.raw.read1(_BLOCK_BYTES):
            received += len(block)
            if received > max_bytes:
                raise ServerAnswerError(f"expected an answer of at most {max_bytes} bytes, found a longer one")
            if time.monotonic() - begin > timeout_s + received / bytes_per_s:
                raise ServerUnreachableError("the server sends too slowly; try again later")
            yield block
    except urllib3.exceptions.HTTPError as error:
        raise _unreachable(error) from None


def _json_object(response: requests.Response, timeout_s: float, *, uploading: bool = False) -> dict[str, Any]:
    _check_status(response.status_code, uploading=uploading)
    content = b"".join(_blocks(response, _MAX_JSON_BYTES, timeout_s))
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ServerAnswerError("expected JSON from the server, found something else; is the address right?") from None
    if not isinstance(document, dict):
        raise ServerAnswerError("expected a JSON object from the server, found another value")
    return document


def _check_status(status: int, *, uploading: bool) -> None:
    if status == 200:
        return
    if status == 401:
        more = "; for an upload it may also mean that the file is larger than the server takes" if uploading else ""
        raise AccessDeniedError(f"the server does not accept the API key (401){more}; check the key")
    if status == 403:
        raise AccessDeniedError("the API key lacks the permission for this model type (403); ask the operator")
    if 300 <= status < 400:
        raise ServerAnswerError("the server sends elsewhere, which is not followed; set its new address yourself")
    meanings = {400: "a malformed name", 404: "no such model type", 413: "the file is too large"}
    meaning = meanings.get(status, "an error of the server")
    if status in (502, 503, 504):
        raise ServerUnreachableError(f"the server is not available ({status}); try again later")
    raise ServerAnswerError(f"the server answered {status}: {meaning}")


def _checked_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingsError("expected the server's address as https://..., found a malformed one") from None
    if not host or parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingsError("expected the server's address as https://host/path/, found something else")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise SettingsError("expected https:// (plain http:// only to this machine): the API key would be readable")
    return base_url if base_url.endswith("/") else base_url + "/"
