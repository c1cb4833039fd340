"""Calls to a Dafne federation server over HTTP (DAFNE.md section 2), with nothing of the answer trusted.

Terms: a call is the last part of the URL; JSON calls carry the key in their body, as Dafne's protocol has it.

Invariants
- The API key goes into request bodies only: never into a URL, a message, a log or a representation.
- Plain HTTP is for this machine only, and goes through no proxy; a redirect is never followed, because it could carry
  the key elsewhere. Certificates are always verified (route.py).
- Every answer is bounded in time, its head by `timeout_s` (watchdog.py), and its body in size. A download lands in a
  temporary file and takes its name only when it is complete and its SHA-256 is the expected one.
- What is repeated is what leaves the server as doing it once: JSON calls, downloads, and the parts of an upload but for
  the last. The last part is repeated only when the server cannot have got all of it; when it may have,
  UploadUnknownError says so.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import requests

from dafne_dante.durable import write_stream_atomically
from dafne_dante.errors import ServerAnswerError, ServerUnreachableError, SettingsError, UploadUnknownError
from dafne_dante.federation.answers import check_status, read_blocks, read_object
from dafne_dante.federation.failures import explain_failure
from dafne_dante.federation.form import FilePart, UploadForm
from dafne_dante.federation.retrying import Retrying
from dafne_dante.federation.route import Route, checked_address, find_route
from dafne_dante.federation.watchdog import WatchedAdapter

__all__ = ["HttpTransport", "Progress", "Transport"]

_MAX_FILE_BYTES = 2 * 1024**3
_CONNECT_S = 20.0
_SHORTEST_BYTES_PER_S = 1024
_CHECKSUM = "X-SHA256-Checksum"

Progress = Callable[[int, int], None]
"""Told the bytes that went so far and the bytes in all (0: not known)."""


class Transport(Protocol):
    """What the client needs of a transport; errors are those of HttpTransport."""

    def ask(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One JSON object for a JSON body."""

    def send(
        self, call: str, fields: Mapping[str, str], name: str, content: FilePart, *, last: bool = True
    ) -> dict[str, Any]:
        """One JSON object for a multipart form with a file `model_binary`."""

    def download(
        self, call: str, body: Mapping[str, Any], destination: Path, *, sha256: str | None, progress: Progress | None
    ) -> Path:
        """The file that answers a JSON body, written to `destination`."""


class HttpTransport:
    """Dafne's HTTP API at one base URL.

    `timeout_s` is for a connection (which gets 20 s at most), for the next bytes in either direction, for the head of
    an answer, and for a whole JSON answer; a file may take longer as long as it goes at 1 KiB/s or more, up to
    `max_file_bytes`.
    `route` None: as the environment says.

    Raises:
        SettingsError: no URL or key, plain HTTP to another machine, or a proxy or certificates that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float = 60.0,
        max_file_bytes: int = _MAX_FILE_BYTES,
        retrying: Retrying | None = None,
        route: Route | None = None,
    ) -> None:
        self._base_url = checked_address(base_url)
        if not api_key:
            raise SettingsError("expected an API key in settings.toml or DAFNE_DANTE_API_KEY, found none; set one")
        self._api_key, self._timeout_s, self._max_file_bytes = api_key, timeout_s, max_file_bytes
        self._retrying = Retrying() if retrying is None else retrying
        self._route = find_route(self._base_url) if route is None else route
        self._session = _session_on(self._route)

    def __repr__(self) -> str:
        return f"HttpTransport({self._base_url!r})"

    def ask(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST a JSON body and return the JSON object of the answer; repeated after failures that may pass.

        Raises:
            ServerUnreachableError: no answer in time; its subclasses CertificateError and ProxyRefusedError say that
                something stands in between.
            AccessDeniedError: 401 or 403.
            ServerAnswerError: any other status, or an answer that is no JSON object or too long.
        """
        return self._retrying.run(lambda: self._ask_once(call, body))

    def send(
        self, call: str, fields: Mapping[str, str], name: str, content: FilePart, *, last: bool = True
    ) -> dict[str, Any]:
        """POST a multipart form; `last`: this completes an upload, so it must not be done twice.

        Raises:
            As `ask`.
            UploadUnknownError: `last`, and the server may have taken what it did not acknowledge.
            StorageError: the file cannot be read.
        """
        try:
            return self._retrying.run(
                lambda: self._send_once(call, fields, name, content),
                worth=lambda error: not (last and error.may_have_arrived),
            )
        except ServerUnreachableError as error:
            if last and error.may_have_arrived:
                raise UploadUnknownError(f"{error}; the server may have taken the file, or not") from error
            raise

    def download(
        self,
        call: str,
        body: Mapping[str, Any],
        destination: Path,
        *,
        sha256: str | None,
        progress: Progress | None = None,
    ) -> Path:
        """POST a JSON body and write the answer's bytes to `destination`, whole or not at all.

        `sha256` None: the server's own `X-SHA256-Checksum` is checked instead, where it sends one.

        Raises:
            As `ask`; ServerAnswerError also when the bytes do not have the digest `sha256` or are too many.
            StorageError: the disk refuses.
        """
        self._retrying.run(lambda: self._download_once(call, body, destination, sha256, progress))
        return destination

    def _ask_once(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._answer(call, json={**body, "api_key": self._api_key}) as response:
            return read_object(response, self._timeout_s)

    def _send_once(self, call: str, fields: Mapping[str, str], name: str, content: FilePart) -> dict[str, Any]:
        everything = {**fields, "api_key": self._api_key}
        with UploadForm(everything, name, content, timeout_s=self._timeout_s) as form:
            try:
                with self._answer(call, data=form, headers={"Content-Type": form.content_type}) as response:
                    return read_object(response, self._timeout_s, uploading=True)
            except ServerUnreachableError as error:
                error.may_have_arrived = error.may_have_arrived and form.exhausted
                if form.failure is not None:
                    raise form.failure from None
                raise

    def _download_once(
        self, call: str, body: Mapping[str, Any], destination: Path, sha256: str | None, progress: Progress | None
    ) -> None:
        with self._answer(call, json={**body, "api_key": self._api_key}) as response:
            check_status(response, self._timeout_s)
            write_stream_atomically(destination, lambda stream: self._receive(response, stream, sha256, progress))

    def _receive(
        self, response: requests.Response, stream: IO[bytes], sha256: str | None, progress: Progress | None
    ) -> None:
        """Copy the answer into `stream` and check its digest: the expected one, else the one that came with it."""
        digest, received = hashlib.sha256(), 0
        announced = response.headers.get("Content-Length", "")
        total = int(announced[:15]) if announced.isascii() and announced.isdigit() else 0
        for block in read_blocks(response, self._max_file_bytes, self._timeout_s, _SHORTEST_BYTES_PER_S):
            digest.update(block)
            stream.write(block)
            received += len(block)
            if progress is not None:
                progress(received, total)
        expected = response.headers.get(_CHECKSUM, "").strip().lower() if sha256 is None else sha256
        if expected and digest.hexdigest() != expected:
            raise ServerAnswerError("expected a file with the server's SHA-256, found other bytes; try again")

    @contextmanager
    def _answer(self, call: str, **content: Any) -> Iterator[requests.Response]:
        """The open answer to one POST; a failure of the network until its body becomes ServerUnreachableError."""
        timeout = (min(_CONNECT_S, self._timeout_s), self._timeout_s)
        try:
            response = self._session.post(
                self._base_url + call, stream=True, allow_redirects=False, timeout=timeout, **content
            )
        except requests.RequestException as error:
            raise explain_failure(error, self._base_url, self._route) from None
        with response:
            yield response


def _session_on(route: Route) -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, WatchedAdapter())
    # The route was found and checked before; the library's own look at the environment would also send .netrc's
    # passwords, and let an environment variable replace the setting.
    session.trust_env = False
    session.verify = route.ca_bundle or True
    session.proxies = {"https": route.proxy} if route.proxy else {}
    # Not compressed: what is counted and hashed is then what came over the wire, and nothing can inflate.
    session.headers["Accept-Encoding"] = "identity"
    return session
