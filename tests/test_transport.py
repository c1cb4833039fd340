"""The transport against servers that misbehave: nothing of an answer is trusted, and the key stays in the body."""

import hashlib
import json
import logging
import tempfile
import time
from pathlib import Path

import pytest
from fake_servers import (
    FakeServer,
    answer,
    drip,
    drip_chunks,
    drip_headers,
    drip_lengths,
    endless_100,
    hang,
    hang_up,
    redirect,
)

from dafne_dante.errors import (
    AccessDeniedError,
    ServerAnswerError,
    ServerUnreachableError,
    SettingsError,
    StorageError,
    UploadUnknownError,
)
from dafne_dante.federation.form import FilePart
from dafne_dante.federation.retrying import Retrying, RetryPlan
from dafne_dante.federation.transport import HttpTransport

KEY = "0123abcd.secretsecretsecretsecretsecretse"
CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Pauses(list):
    """Keeps the pauses instead of making them."""

    def __call__(self, seconds):
        self.append(seconds)


def make_transport(server, pauses=None, **options):
    pauses = Pauses() if pauses is None else pauses
    retrying = Retrying(RetryPlan(retries=2), pause=pauses, draw=lambda: 1.0)
    options = {"timeout_s": 5.0, "retrying": retrying, **options}
    return HttpTransport(server if isinstance(server, str) else server.url, KEY, **options)


def ask(transport, folder):
    return transport.ask("info_model", {"model_type": "Brain"})


def send(transport, folder, last=True):
    with tempfile.TemporaryDirectory() as own:
        path = Path(own) / "sent"
        path.write_bytes(CONTENT)
        return transport.send("upload_model", {"model_type": "Brain"}, "a.model", FilePart.whole(path), last=last)


def download(transport, folder):
    return transport.download("get_model", {"model_type": "Brain"}, folder / "got.model", sha256=DIGEST)


def part(transport, folder):
    return send(transport, folder, last=False)


WAYS = {"ask": ask, "send": send, "part": part, "download": download}


def test_ask_sends_the_key_in_the_body_only_and_returns_the_object():
    with FakeServer(answer(b'{"a": [1]}')) as server:
        assert make_transport(server).ask("info_model", {"model_type": "Brain"}) == {"a": [1]}
    (method, path, headers, body), = server.requests  # fmt: skip
    assert (method, path) == ("POST", "/info_model")
    assert json.loads(body) == {"model_type": "Brain", "api_key": KEY}
    assert KEY not in repr(headers)


def test_send_is_a_form_with_the_file_unchanged():
    with FakeServer(answer(b'{"message": "ok"}')) as server:
        assert send(make_transport(server), None) == {"message": "ok"}
    _, path, headers, body = server.requests[0]
    assert path == "/upload_model"
    assert headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert int(headers["Content-Length"]) == len(body)
    assert b'name="model_binary"; filename="a.model"' in body
    assert CONTENT in body
    assert body.count(KEY.encode()) == 1


def test_download_writes_the_bytes(tmp_path):
    with FakeServer(answer(CONTENT)) as server:
        assert download(make_transport(server), tmp_path).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["got.model"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (400, ServerAnswerError, "malformed"),
        (401, AccessDeniedError, "does not accept the API key"),
        (403, AccessDeniedError, "lacks the permission"),
        (404, ServerAnswerError, "no such model type"),
        (413, ServerAnswerError, "too large"),
        (422, ServerAnswerError, "422"),
        (500, ServerAnswerError, "500"),
    ],
)
def test_a_status_is_told_and_never_asked_again(way, status, error, words, tmp_path):
    with FakeServer(answer(b'{"message": "no"}', status)) as server, pytest.raises(error, match=words):
        WAYS[way](make_transport(server), tmp_path)
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_401_on_an_upload_may_mean_that_the_file_is_too_large():
    with FakeServer(answer(b"{}", 401)) as server:
        with pytest.raises(AccessDeniedError, match="may also mean that the file is larger than the server takes"):
            send(make_transport(server), None)
        with pytest.raises(AccessDeniedError) as raised:
            ask(make_transport(server), None)
    assert "larger" not in str(raised.value)


@pytest.mark.parametrize(
    ("step", "taken"),
    [(answer(b"{}", 502), True), (answer(b"{}", 504), True), (hang_up, True), (answer(b"{}", 503), False),
     (answer(b"{}", 429), False)],
)  # fmt: skip
@pytest.mark.parametrize("way", ["ask", "download", "part", "send"])
def test_only_what_may_be_repeated_is_repeated(step, way, taken, tmp_path):
    """The part that completes an upload is repeated only when the server said that it did not take it up."""
    pauses = Pauses()
    unknown = way == "send" and taken
    tries = 1 if unknown else 3
    with FakeServer(step) as server, pytest.raises(ServerUnreachableError) as raised:
        WAYS[way](make_transport(server, pauses), tmp_path)
    assert isinstance(raised.value, UploadUnknownError) == unknown
    assert raised.value.may_have_arrived == taken
    assert len(server.requests) == tries
    assert pauses == [0.5, 1.0][: tries - 1]


def test_a_failure_that_passes_is_not_told(tmp_path):
    with FakeServer(answer(b"", 503), hang_up, answer(b'{"a": 1}')) as server:
        assert ask(make_transport(server), None) == {"a": 1}
    with FakeServer(answer(CONTENT[:99], length=len(CONTENT)), answer(CONTENT)) as server:
        assert download(make_transport(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>hello</html>", b"[1, 2]", b"17", b'{"a": ', b"\xff\xfe", b"[" * 100_000, b'"' + b"x" * 4_200_000],
    ids=["empty", "html", "list", "number", "cut", "no text", "deep", "huge"],
)
@pytest.mark.parametrize("way", ["ask", "send"])
def test_an_answer_that_is_no_object_is_refused(way, content):
    with FakeServer(answer(content)) as server, pytest.raises(ServerAnswerError):
        WAYS[way](make_transport(server), None)
    assert len(server.requests) == 1


def test_other_bytes_never_take_the_files_name(tmp_path):
    (tmp_path / "got.model").write_bytes(b"as it was")
    with FakeServer(answer(CONTENT[:-1] + b"x")) as server, pytest.raises(ServerAnswerError, match="other bytes"):
        download(make_transport(server), tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("got.model", b"as it was")]


def test_a_cut_download_is_no_answer_even_without_a_digest(tmp_path):
    with FakeServer(answer(CONTENT[:1000], length=len(CONTENT))) as server, pytest.raises(ServerUnreachableError):
        make_transport(server).download("download_upload", {}, tmp_path / "got", sha256=None)
    assert len(server.requests) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("header", [DIGEST, DIGEST.upper(), f" {DIGEST} ", ""])
def test_without_a_digest_the_servers_own_is_checked(tmp_path, header):
    with FakeServer(answer(CONTENT, headers=[("X-SHA256-Checksum", header)])) as server:
        got = make_transport(server).download("download_upload", {}, tmp_path / "got", sha256=None)
    assert got.read_bytes() == CONTENT


@pytest.mark.parametrize("header", ["a" * 64, "nonsense"])
def test_other_bytes_than_the_server_tells_are_refused(tmp_path, header):
    step = answer(CONTENT, headers=[("X-SHA256-Checksum", header)])
    with FakeServer(step) as server, pytest.raises(ServerAnswerError, match="other bytes"):
        make_transport(server).download("download_upload", {}, tmp_path / "got", sha256=None)
    assert list(tmp_path.iterdir()) == []


def test_the_list_decides_against_the_servers_own_digest(tmp_path):
    step = answer(b"forged", headers=[("X-SHA256-Checksum", hashlib.sha256(b"forged").hexdigest())])
    with FakeServer(step) as server, pytest.raises(ServerAnswerError, match="other bytes"):
        download(make_transport(server), tmp_path)


def test_a_file_beyond_the_limit_is_given_up(tmp_path):
    with FakeServer(answer(CONTENT)) as server, pytest.raises(ServerAnswerError, match="at most 1000 bytes"):
        download(make_transport(server, max_file_bytes=1000), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_json_answer_is_given_up():
    with (
        FakeServer(answer(b"x" * 5_000_000, length=10**12)) as server,
        pytest.raises(ServerAnswerError, match="longer"),
    ):
        ask(make_transport(server), None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("way", WAYS)
def test_a_redirect_is_not_followed(way, status, tmp_path):
    with (
        FakeServer(answer(b"{}")) as elsewhere,
        FakeServer(redirect(elsewhere.url, status)) as server,
        pytest.raises(ServerAnswerError, match="not followed"),
    ):
        WAYS[way](make_transport(server), tmp_path)
    assert elsewhere.requests == []
    assert len(server.requests) == 1


SLOW = {
    "hang": hang,
    "drip": drip(0.02),
    "drip in chunks": drip_chunks(0.02),
    "drip the headers": drip_headers(0.02),
    "drip the length of a chunk": drip_lengths(0.02),
    "continue for ever": endless_100(0.02),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("step", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_too_slow_is_given_up_in_time(step, way, tmp_path):
    tries = 1 if way == "send" else 3
    begin = time.monotonic()
    with FakeServer(step) as server, pytest.raises(ServerUnreachableError):
        WAYS[way](make_transport(server, timeout_s=0.3), tmp_path)
    assert 0.3 * tries <= time.monotonic() - begin < 0.3 * tries + 20
    assert len(server.requests) == tries
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_is_told_after_three_tries():
    with FakeServer(answer(b"{}")) as server:
        url = server.url
    pauses = Pauses()
    with pytest.raises(ServerUnreachableError, match="no answer"):
        ask(make_transport(url, pauses), None)
    assert pauses == [0.5, 1.0]


def test_a_folder_that_is_a_file_is_a_fault_of_the_disk(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with FakeServer(answer(CONTENT)) as server, pytest.raises(StorageError, match=r"cannot write got\.model"):
        download(make_transport(server), tmp_path / "file")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "", "example.org", "ftp://example.org/", "http://example.org/", "http://127.0.0.1.example.org/",
        "https://user:secret@example.org/", "https://key@example.org/", "https://example.org/?key=1",
        "https://example.org/#x", "https:///path", "https://[::1", "https://example.org:port/", "http://10.0.0.1/",
    ],
)  # fmt: skip
def test_an_address_that_would_give_the_key_away_is_refused(url):
    with pytest.raises(SettingsError) as raised:
        HttpTransport(url, KEY)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["https://example.org", "http://localhost:1/a/", "http://[::1]:1/", "http://127.0.0.1"])
def test_https_and_this_machine_are_allowed(url):
    assert repr(HttpTransport(url, KEY)) == f"HttpTransport({url.rstrip('/') + '/'!r})"


def test_no_key_no_transport():
    with pytest.raises(SettingsError, match="expected an API key"):
        HttpTransport("https://example.org/", "")


def test_no_proxy_sees_what_stays_on_this_machine(monkeypatch):
    with FakeServer(answer(b"{}")) as proxy, FakeServer(answer(b'{"a": 1}')) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert ask(make_transport(server), None) == {"a": 1}
    assert proxy.requests == []


STEPS = [answer(b"{}", 401), answer(b"no", 500), answer(b"[", 200), answer(b"x", length=9), hang_up, redirect("/x")]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("way", WAYS)
def test_the_key_is_in_no_error_log_or_representation(step, way, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with FakeServer(step) as server:
        transport = make_transport(server)
        with pytest.raises((AccessDeniedError, ServerAnswerError, ServerUnreachableError)) as raised:
            WAYS[way](transport, tmp_path)
    told = [repr(transport), caplog.text, *server.calls]
    error = raised.value
    while error is not None:
        told += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert caplog.records
    assert all(KEY not in text and "secretsecret" not in text for text in told)
