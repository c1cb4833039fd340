"""What the embedded server lets its callers use: rights, rates, slow bodies, an end in order; and what it logs."""

import json
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import requests
from federations import BUSY, Federation
from test_running import free_port, wait_until_ready

from dafne_dante.errors import ServerUnreachableError
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.rate_limit import Rate
from dafne_dante.federation.retrying import Retrying
from dafne_dante.federation.server_log import RequestLine, RequestLog
from dafne_dante.federation.transport import HttpTransport


def lines(federation, count, name="requests.jsonl"):
    """A log, once it has `count` lines: one is written when its call is answered, so maybe a moment later."""
    path, deadline, found = federation.root / "log" / name, time.monotonic() + 10, []
    while len(found) < count and time.monotonic() < deadline:
        time.sleep(0.02)
        found = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in found]


@pytest.fixture
def serving(tmp_path):
    """Start a federation with other limits, or another of them."""
    running = []

    def start(**limits):
        made = Federation(tmp_path / f"server{len(running)}", replace(BUSY, **limits))
        made.server.__enter__()
        running.append(made.server)
        return made

    yield start
    for server in running:
        server.__exit__(None, None, None)


def test_each_right_allows_its_calls_and_no_others(serving, tmp_path):
    federation = serving()
    (tmp_path / "m.model").write_bytes(b"model")
    version = federation.shelf.publish_copy(federation.model_type, tmp_path / "m.model")
    kind = federation.model_type
    keys = {right: federation.accounts.add_user(right, **{right: [kind]}) for right in ("read", "upload", "merge")}
    statuses = {}
    for right, key in keys.items():
        federation.form("upload_model", "site")
        waiting = federation.uploads()[0].filename
        statuses[right] = [
            federation.post("info_model", key, model_type=kind).status_code,
            federation.post("get_model", key, model_type=kind, timestamp=version).status_code,
            federation.form("upload_model", key).status_code,
            federation.post("get_pending_uploads", key, model_type=kind).status_code,
            federation.post("download_upload", key, model_type=kind, filename=waiting).status_code,
            federation.post("delete_upload", key, model_type=kind, filename=waiting).status_code,
            federation.form("upload_merged_model", key, sha256="a" * 64).status_code,
            len(federation.client(key).available_models()),
        ]
    assert statuses == {
        "read": [200, 200, 403, 401, 401, 401, 401, 1],
        "upload": [403, 403, 200, 401, 401, 401, 401, 0],
        "merge": [200, 200, 200, 200, 200, 200, 422, 1],
    }


def test_a_user_who_calls_too_often_is_told_when_to_come_back(serving):
    federation = serving(user=Rate(3, 0.5))
    answers = [federation.post("get_available_models") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["Retry-After"] in ("1", "2")
    assert federation.post("get_available_models", "operator").status_code == 200  # has calls of its own


def test_our_transport_waits_as_long_as_it_is_told(serving):
    federation = serving(user=Rate(1, 2))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        time.sleep(seconds)

    transport = HttpTransport(federation.url, federation.keys["site"], retrying=Retrying(pause=pause))
    client = FederationClient(transport)
    assert [client.available_models() for _ in range(3)] == [[federation.model_type]] * 3
    assert len(pauses) >= 2
    assert min(pauses) >= 1.0
    given_up = HttpTransport(federation.url, federation.keys["site"], retrying=Retrying(pause=lambda seconds: None))
    with pytest.raises(ServerUnreachableError, match="429"):
        FederationClient(given_up).available_models()


def test_an_address_is_bounded_before_its_key_is_looked_at(serving):
    federation = serving(address=Rate(4, 0.001), wrong_key_tokens=2)
    statuses = [federation.post("get_available_models", key).status_code for key in ("wrong", "site", "site")]
    assert statuses == [401, 200, 429]  # the wrong key cost three
    assert [line["user"] for line in lines(federation, 1)] == ["site"]
    assert [line["status"] for line in lines(federation, 2, "anonymous.jsonl")] == [401, 429]
    assert federation.form("upload_model").status_code == 429
    assert federation.uploads() == []
    assert federation.accounts.logged() == []


def connect(federation):
    host, port = federation.url.removeprefix("http://").strip("/").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


HEAD = (
    b"POST /upload_model HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: %d\r\n\r\n"
)


def form(federation, content=b"update"):
    """A whole upload as bytes."""
    fields = {"api_key": federation.keys["site"], "model_type": federation.model_type}
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    head = '--b\r\nContent-Disposition: form-data; name="model_binary"; filename="a"\r\n\r\n'
    body = "".join([*parts, head]).encode() + content + b"\r\n--b--\r\n"
    return HEAD % len(body) + body


@pytest.mark.parametrize("drips", [False, True])
def test_a_body_that_does_not_come_is_408(serving, drips):
    federation = serving(idle_s=0.3)
    begin = time.monotonic()
    with connect(federation) as connection:
        connection.sendall(HEAD % 100_000 + b"--b\r\n")
        stop = threading.Event()

        def drip():
            while drips and not stop.wait(0.1):
                connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert b" 408 " in connection.makefile("rb").readline()
        finally:
            stop.set()
            thread.join()
    assert time.monotonic() - begin < 5
    assert [line["status"] for line in lines(federation, 1, "anonymous.jsonl")] == [408]


def test_a_line_says_who_what_status_bytes_and_how_long(serving):
    federation = serving()
    federation.form("upload_model", content=b"secret body" * 100)
    federation.post("info_model", model_type=federation.model_type)
    federation.post("info_model", "wrong", model_type=federation.model_type)
    federation.post("info_model", "stranger", model_type="../etc")
    requests.post(federation.url + federation.keys["site"], json={"model_type": "x"}, timeout=20)
    requests.get(f"{federation.url}get_available_models?api_key={federation.keys['site']}", timeout=20)
    found = lines(federation, 3)
    anonymous = lines(federation, 3, "anonymous.jsonl")
    assert [(line["user"], line["call"], line["type"], line["status"]) for line in [*found, *anonymous]] == [
        ("site", "upload_model", federation.model_type, 200),
        ("site", "info_model", federation.model_type, 404),
        ("stranger", "info_model", "", 400),
        ("", "info_model", "", 401),
        ("", "other", "", 404),
        ("", "get_available_models", "", 401),
    ]
    assert found[0]["received_bytes"] > 1100
    assert found[0]["sent_bytes"] == len(b'{"message":"upload successful"}')
    assert all(line["address"] == "127.0.0.1" and 0 < line["ms"] < 60_000 for line in found)
    path = federation.root / "log" / "requests.jsonl"
    text = path.read_text() + path.with_name("anonymous.jsonl").read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in text
    assert not any(key[9:] in text for key in federation.keys.values())


def test_the_log_is_bounded(tmp_path):
    log = RequestLog(tmp_path, max_bytes=1000, files=2, clock=lambda: 0.0)
    for number in range(100):
        log.write(RequestLine("", str(number), "", "", 200, 0, 0, 0.0))
    names = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert set(names) <= {"requests.jsonl", "requests.jsonl.1", "requests.jsonl.2"}
    assert sum(path.stat().st_size for path in (tmp_path / "log").iterdir()) < 3500
    last = (tmp_path / "log" / "requests.jsonl.1").read_text().splitlines()
    users = [json.loads(line)["user"] for line in last]
    assert users == sorted(users, key=int)
    assert json.loads(last[0])["at"] == "1970-01-01T00:00:00.000000Z"


def test_a_log_that_cannot_be_written_is_told_once_and_stops_nothing(tmp_path, caplog):
    log = RequestLog(tmp_path, max_bytes=10**6, files=1)
    (tmp_path / "log").rmdir()
    (tmp_path / "log").write_bytes(b"")
    line = RequestLine("", "site", "", "", 200, 0, 0, 0.0)
    for _ in range(3):
        log.write(line)
    assert caplog.text.count("cannot write requests.jsonl") == 1
    (tmp_path / "log").unlink()
    (tmp_path / "log").mkdir()
    log.write(line)
    assert len((tmp_path / "log" / "requests.jsonl").read_text().splitlines()) == 1


def test_what_is_being_received_when_the_server_is_stopped_is_finished(tmp_path):
    federation = Federation(tmp_path / "root")
    with federation.server:
        content = form(federation)  # the one of this process is not needed
    program = (
        "import sys, pathlib; from dafne_dante.federation.running import serve; serve(pathlib.Path(sys.argv[1]), {})"
    )
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", program.format(port), str(federation.root)])
    try:
        wait_until_ready(port, process)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(content[:-20])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=2).close()
            connection.sendall(content[-20:])
            assert b" 200 " in connection.makefile("rb").readline()
        assert process.wait(timeout=20) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    (upload,) = federation.uploads()
    assert federation.shelf.upload_path(federation.model_type, upload.filename).read_bytes() == b"update"


def test_a_caller_who_never_ends_does_not_hold_the_server_up(tmp_path):
    federation = Federation(tmp_path / "root", replace(BUSY, finish_s=1))
    with federation.server:
        connection = connect(federation)
        connection.sendall(form(federation)[:-20])
        time.sleep(0.3)
        begin = time.monotonic()
    assert time.monotonic() - begin < 8
    assert b" 503 " in connection.makefile("rb").readline()
    connection.close()
    assert federation.uploads() == []
