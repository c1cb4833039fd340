"""Reading what a server answers, with nothing of it trusted.

Invariants: a body is bounded in bytes and in time; what is said in an error's message is ours, never the server's; the
server's own words are kept apart, short and printable (`ServerAnswerError.reason`).
"""

import json
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3

from dafne_dante.errors import AccessDeniedError, ServerAnswerError, ServerUnreachableError
from dafne_dante.federation.watchdog import Watchdog, socket_of

__all__ = ["check_status", "read_blocks", "read_object"]

_MAX_JSON_BYTES = 4 * 1024**2
_MAX_REASON_BYTES = 64 * 1024
_BLOCK_BYTES = 1 << 16
_MEANINGS = {
    400: "a malformed name",
    404: "no such model type",
    413: "the file is too large; a smaller [federation] chunk_mib may help",
}
_TOO_LARGE = (
    "; for an upload it may also mean that the file is larger than the server takes: "
    "a smaller [federation] chunk_mib may help"
)


def read_blocks(
    response: requests.Response, max_bytes: int, timeout_s: float, bytes_per_s: float = float("inf")
) -> Iterator[bytes]:
    """The body as it comes, of at most `max_bytes`, in at most `timeout_s` and the time that `bytes_per_s` takes.

    Read by `read1`, which returns what is there: a read of a fixed size would wait for ever for a server that drips.

    Raises:
        ServerAnswerError: it is longer. ServerUnreachableError: it is too slow, or cut.
    """
    received, begin, connection = 0, time.monotonic(), socket_of(response)
    # One read may wait for as long as a server drips what lies between the blocks: their lengths, a trailer.
    with Watchdog(lambda: connection, timeout_s) as watchdog:
        try:
            while block := response.raw.read1(_BLOCK_BYTES):
                received += len(block)
                if received > max_bytes:
                    raise ServerAnswerError(f"expected an answer of at most {max_bytes} bytes, found a longer one")
                left_s = begin + timeout_s + received / bytes_per_s - time.monotonic()
                if watchdog.has_cut or left_s < 0:
                    raise ServerUnreachableError("the server sends too slowly; try again later")
                watchdog.allow(left_s)
                yield block
        except urllib3.exceptions.HTTPError as error:
            why = "too slow" if watchdog.has_cut else type(error).__name__
            raise ServerUnreachableError(
                f"the federation server's answer breaks off ({why}); check the network"
            ) from None
    if watchdog.has_cut:
        raise ServerUnreachableError("the server sends too slowly; try again later")


def read_object(response: requests.Response, timeout_s: float, *, uploading: bool = False) -> dict[str, Any]:
    """The JSON object of an answer with status 200.

    Raises:
        As `check_status`; ServerAnswerError also for anything but a JSON object.
    """
    check_status(response, timeout_s, uploading=uploading)
    document = _parsed(b"".join(read_blocks(response, _MAX_JSON_BYTES, timeout_s)))
    if _is_status_in_a_list(document):
        # Dafne's FastAPI server says [object, status] with status 200.
        raise _refused(int(document[1]), _reason(document[0]), uploading=uploading)
    if not isinstance(document, dict):
        raise ServerAnswerError("expected a JSON object from the server, found another value")
    return document


def check_status(response: requests.Response, timeout_s: float, *, uploading: bool = False) -> None:
    """Nothing for 200, else the error that the status means.

    Raises:
        AccessDeniedError: 401, 403.
        ServerUnreachableError: 429 and 503, with what Retry-After asks for, and 502, 504.
        ServerAnswerError: any other, with the server's reason.
    """
    status = response.status_code
    if status == 200:
        return
    if status in (429, 503):
        # Both say that the request was not taken up; a gateway's 502 and 504 do not.
        raise ServerUnreachableError(
            f"the server is busy ({status}); try again later",
            may_have_arrived=False,
            retry_after_s=_asked_s(response.headers.get("Retry-After", "")),
        )
    if status in (502, 504):
        raise ServerUnreachableError(f"the server is not available ({status}); try again later")
    raise _refused(status, _told_reason(response, timeout_s), uploading=uploading)


def _refused(status: int, reason: str, *, uploading: bool) -> AccessDeniedError | ServerAnswerError:
    more = _TOO_LARGE if uploading else ""
    if status == 401:
        return AccessDeniedError(f"the server does not accept the API key (401){more}; check the key")
    if status == 403:
        return AccessDeniedError("the API key lacks the permission for this model type (403); ask the operator")
    if 300 <= status < 400:
        return ServerAnswerError(
            "the server sends elsewhere, which is not followed; set its new address yourself", status=status
        )
    meaning = _MEANINGS.get(status, "an error of the server")
    more = more if status == 400 else ""
    return ServerAnswerError(f"the server answered {status}: {meaning}{more}", status=status, reason=reason)


def _told_reason(response: requests.Response, timeout_s: float) -> str:
    """The `message` of a refusal's body; "" when there is none to be had."""
    try:
        return _reason(_parsed(b"".join(read_blocks(response, _MAX_REASON_BYTES, min(timeout_s, 5.0)))))
    except (ServerAnswerError, ServerUnreachableError):
        return ""


def _reason(document: Any) -> str:
    message = document.get("message") if isinstance(document, dict) else None
    return "".join(one for one in message[:200] if one.isprintable()) if isinstance(message, str) else ""


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ServerAnswerError("expected JSON from the server, found something else; is the address right?") from None


def _is_status_in_a_list(document: Any) -> bool:
    if not isinstance(document, list) or len(document) != 2 or not isinstance(document[0], dict):
        return False
    return isinstance(document[1], int) and not isinstance(document[1], bool) and 300 <= document[1] < 600


def _asked_s(text: str) -> float | None:
    """Seconds that Retry-After asks for (RFC 9110, section 10.2.3: a number of seconds, or a date)."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        until = parsedate_to_datetime(text)
        aware = until if until.tzinfo else until.replace(tzinfo=timezone.utc)
        return max(0.0, (aware - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
