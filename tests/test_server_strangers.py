"""Whoever has no key cannot take the embedded server from those who have one: not its connections, log or address."""

import json
import socket
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
import requests
from federations import BUSY, Federation

from dafne_dante.federation.rate_limit import Rate
from dafne_dante.federation.server_log import RequestLine, RequestLog

SILENCES = {
    "nothing": b"",
    "half a head": b"POST /info_model HTTP/1.1\r\nHost: x\r\n",
    "after an answer": b"GET /get_available_models HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.fixture
def serving(tmp_path):
    """Start a federation with other limits, or another of them."""
    with ExitStack() as stack:

        def start(**limits):
            made = Federation(tmp_path / f"server{time.monotonic_ns()}", replace(BUSY, **limits))
            stack.enter_context(made.server)
            return made

        yield start


def connect(federation, sent=b""):
    host, port = federation.url.removeprefix("http://").strip("/").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(sent)
    return connection


def seconds_until_closed(connection):
    begin = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - begin


def anonymous(federation, count):
    """The log of calls without a key, once it has `count` lines."""
    path, deadline, found = federation.root / "log" / "anonymous.jsonl", time.monotonic() + 10, []
    while len(found) < count and time.monotonic() < deadline:
        time.sleep(0.02)
        found = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in found]


@pytest.mark.parametrize("silence", SILENCES)
def test_more_silent_connections_than_there_are_keep_nobody_out(serving, silence):
    federation = serving(connections=16)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(federation, SILENCES[silence]))
        time.sleep(0.3)
        for _ in range(5):
            assert federation.post("get_available_models").status_code == 200


@pytest.mark.parametrize("silence", SILENCES)
def test_a_connection_on_which_nothing_comes_is_closed(serving, silence):
    federation = serving(head_s=0.5)
    with connect(federation, SILENCES[silence]) as connection:
        assert seconds_until_closed(connection) < 4


def test_a_head_that_drips_is_closed_too(serving):
    federation = serving(head_s=0.5)
    begin = time.monotonic()
    with connect(federation, b"POST /info_model HTTP/1.1\r\nHost: x\r\nX: ") as connection, pytest.raises(OSError):
        while time.monotonic() - begin < 10:
            time.sleep(0.1)
            connection.sendall(b"x")
    assert time.monotonic() - begin < 5


def test_the_connection_that_goes_is_the_oldest_of_those_that_wait(serving):
    federation = serving(connections=8)
    with ExitStack() as stack:
        held = [stack.enter_context(connect(federation)) for _ in range(5)]
        assert seconds_until_closed(held[0]) < 4
        for connection in held[1:]:
            connection.sendall(b"GET /get_available_models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b" 401 " in connection.makefile("rb").readline()


def test_a_call_that_takes_long_is_not_taken_for_silence(serving):
    federation = serving(head_s=0.3)
    body = json.dumps({"api_key": federation.keys["site"]}).encode()
    head = b"POST /get_available_models HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with connect(federation, head) as connection:
        time.sleep(1.0)
        connection.sendall(body)
        assert b" 200 " in connection.makefile("rb").readline()


def form_head(federation, key):
    fields = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in {"api_key": key, "model_type": federation.model_type}.items()
    )
    file = '--b\r\nContent-Disposition: form-data; name="model_binary"; filename="a"\r\n\r\n'
    return (fields + file).encode()


@pytest.mark.parametrize(("key", "status"), [("site", 200), ("wrong", 408)])
def test_a_form_may_come_slowly_from_who_has_a_key(serving, key, status):
    federation = serving(unknown_s=0.5)
    start, content, end = form_head(federation, federation.keys.get(key, key)), b"x" * 15, b"\r\n--b--\r\n"
    head = (
        "POST /upload_model HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(start) + len(content) + len(end)}\r\n\r\n"
    )
    with connect(federation, head.encode() + start) as connection:
        for _ in content:
            time.sleep(0.1)
            try:
                connection.sendall(b"x")
            except OSError:
                break
        else:
            connection.sendall(end)
        assert b" %d " % status in connection.makefile("rb").readline()
    assert len(federation.uploads()) == (status == 200)


def test_an_object_that_drips_is_408_though_every_byte_comes_in_time(serving):
    federation = serving(unknown_s=0.5)
    begin = time.monotonic()
    with connect(federation, b"POST /info_model HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{") as connection:
        connection.settimeout(0.1)
        answer = b""
        while not answer and time.monotonic() - begin < 10:
            connection.sendall(b" ")
            try:
                answer = connection.recv(1000)
            except TimeoutError:
                continue
    assert b" 408 " in answer.splitlines()[0]


def test_of_one_address_so_many_calls_are_under_way_and_no_more(serving):
    federation = serving(at_once=2)
    head = b"POST /info_model HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with connect(federation, head), connect(federation, head):
        time.sleep(0.3)
        answer = federation.post("get_available_models")
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
        elsewhere = requests.post(
            federation.url + "get_available_models",
            json={"api_key": federation.keys["site"]},
            headers={"X-Forwarded-For": "10.9.8.7"},
            timeout=20,
        )
        assert elsewhere.status_code == 200
    time.sleep(0.3)
    assert federation.post("get_available_models").status_code == 200


def test_calls_without_a_key_push_no_users_call_out_of_the_log_or_the_accounts(serving):
    federation = serving(log_bytes=2000, log_files=1)
    federation.post("get_available_models")
    for _ in range(12):
        federation.post("get_available_models", "wrong")
        requests.post(federation.url + "nothing", json={}, timeout=20)
    anonymous(federation, 1)
    (line,) = (federation.root / "log" / "requests.jsonl").read_text().splitlines()
    assert json.loads(line)["user"] == "site"
    assert federation.accounts.logged() == []


def test_the_log_of_calls_without_a_key_is_bounded_by_itself(tmp_path):
    log = RequestLog(tmp_path, max_bytes=1000, files=5, anonymous_files=1)
    for _ in range(100):
        log.write(RequestLine("", "", "", "", 401, 0, 0, 0.0))
    names = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert set(names) <= {"anonymous.jsonl", "anonymous.jsonl.1"}
    assert sum(path.stat().st_size for path in (tmp_path / "log").iterdir()) < 2500


@pytest.mark.parametrize(
    ("proxies", "said", "address"),
    [
        ("127.0.0.1", "10.9.8.7", "10.9.8.7"),
        ("127.0.0.1", "1.2.3.4, 10.9.8.7", "10.9.8.7"),  # a caller may write what is left of the proxy's own word
        ("127.0.0.1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("192.0.2.1", "10.9.8.7", "127.0.0.1"),
    ],
)
def test_what_a_proxy_says_of_the_address_is_believed_of_a_proxy_only(serving, monkeypatch, proxies, said, address):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", proxies)
    federation = serving()
    requests.post(federation.url + "info_model", json={}, headers={"X-Forwarded-For": said}, timeout=20)
    assert [line["address"] for line in anonymous(federation, 1)] == [address]


def test_addresses_behind_a_proxy_have_calls_of_their_own(serving):
    federation = serving(address=Rate(2, 0.001), wrong_key_tokens=2)

    def status(key, address):
        body = {"api_key": federation.keys.get(key, key)}
        headers = {"X-Forwarded-For": address}
        return requests.post(
            federation.url + "get_available_models", json=body, headers=headers, timeout=20
        ).status_code

    assert [status("wrong", "10.0.0.1"), status("site", "10.0.0.1"), status("site", "10.0.0.2")] == [401, 429, 200]
