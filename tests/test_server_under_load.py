"""The embedded server when files are too long, callers many, users revoked or its disk fails; keys stay hidden."""

import json
import logging
import socket
import threading
import time

import pytest
import requests
from federations import LIMIT, Federation

from dafne_dante.config import Settings
from dafne_dante.errors import AccessDeniedError, ServerAnswerError, ServerUnreachableError, StorageError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import FederationClient, connect
from dafne_dante.federation.retrying import Retrying
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.transport import HttpTransport


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    made = Federation(tmp_path_factory.mktemp("server"))
    with made.server:
        yield made


@pytest.fixture(autouse=True)
def no_uploads(federation):
    federation.empty()


def test_uploads_of_one_second_and_many_threads_are_all_kept(federation, tmp_path):
    (tmp_path / "u.delta").write_bytes(b"0123456789")
    failures = []

    def work(number):
        try:
            for _ in range(3):
                federation.client(chunk_bytes=4).upload(federation.model_type, tmp_path / "u.delta", 0.5)
        except (AccessDeniedError, ServerAnswerError, ServerUnreachableError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [one.size for one in federation.uploads()] == [10] * 18


def test_a_file_beyond_the_limit_is_413_in_one_piece_or_many(federation, tmp_path):
    (tmp_path / "u.delta").write_bytes(b"x" * (LIMIT + 1))
    for chunk_bytes in (LIMIT // 4, 10 * LIMIT):
        with pytest.raises(ServerAnswerError, match="too large"):
            federation.client(chunk_bytes=chunk_bytes).upload(federation.model_type, tmp_path / "u.delta", 0.5)
    assert federation.uploads() == []
    assert list((federation.root / "models" / federation.model_type / "chunks").iterdir()) == []
    (tmp_path / "u.delta").write_bytes(b"x" * LIMIT)
    federation.client().upload(federation.model_type, tmp_path / "u.delta", 0.5)
    assert len(federation.uploads()) == 1


def raw(federation, request):
    """Send bytes, return the first line of the answer."""
    host, port = federation.url.removeprefix("http://").strip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        return connection.makefile("rb").readline()


def test_a_body_beyond_the_limit_is_413_before_it_is_read(federation):
    for length in (LIMIT + (1 << 20) + 1, 10**15):
        head = f"POST /upload_model HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        assert b" 413 " in raw(federation, head.encode())


@pytest.mark.parametrize("call", ["upload_model", "info_model"])
def test_a_body_that_hides_its_length_is_413_too(federation, call):
    def endless():
        yield b'--b\r\nContent-Disposition: form-data; name="api_key"\r\n\r\n'
        yield federation.keys["site"].encode() + b"\r\n"
        yield b"--b\r\nContent-Disposition: form-data; name=model_binary; filename=a\r\n\r\n"
        for _ in range(30):
            yield b"x" * 65536

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = requests.post(federation.url + call, data=endless(), headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["message"]) == (413, "body too large")


@pytest.mark.parametrize("key", [None, "wrong", "after the file"])
def test_of_a_long_form_without_a_valid_key_before_its_file_only_the_beginning_is_read(federation, key):
    def field(name, value):
        return b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value + b"\r\n"

    sent = []

    def body():
        if key == "wrong":
            yield field(b"api_key", b"wrong")
        yield field(b"model_type", federation.model_type.encode())
        yield b"--b\r\nContent-Disposition: form-data; name=model_binary; filename=a\r\n\r\n"
        for _ in range(200):
            sent.append(65536)
            yield b"x" * 65536
        yield b"\r\n" + field(b"api_key", federation.keys["site"].encode()) + b"--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        answer = requests.post(federation.url + "upload_model", data=body(), headers=headers, timeout=60)
        assert answer.status_code == 401
    except requests.ConnectionError:
        pass  # closed while the body was still being sent
    assert sum(sent) < 200 * 65536, "the connection was closed before all of it came"
    assert federation.uploads() == []


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data; boundary=b", b"garbage"),
        ("multipart/form-data", b"--b--"),
        ("text/plain", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--\r\n"),
    ],
)
def test_a_malformed_form_is_400(federation, content_type, content):
    answer = requests.post(
        federation.url + "upload_model", data=content, headers={"Content-Type": content_type}, timeout=20
    )
    assert answer.status_code == 400
    assert "message" in answer.json()


def test_a_revoked_key_is_refused_at_once(federation):
    key = federation.accounts.add_user("leaving", access=[federation.model_type])
    assert federation.client(key).available_models() == [federation.model_type]
    Accounts(federation.root).revoke("leaving")
    with pytest.raises(AccessDeniedError):
        federation.client(key).available_models()


def test_a_download_ends_when_its_reader_goes_and_others_are_served(federation, tmp_path):
    (tmp_path / "m.model").write_bytes(b"x" * 20_000_000)
    version = federation.shelf.publish_copy(federation.model_type, tmp_path / "m.model")
    body = {"api_key": federation.keys["site"], "model_type": federation.model_type, "timestamp": version}
    begin = time.monotonic()
    with requests.post(federation.url + "get_model", json=body, stream=True, timeout=60) as slow:
        assert len(next(slow.iter_content(1000))) == 1000
        got = federation.client().download_model(federation.model_type, version, tmp_path / "got")
        assert got.stat().st_size == 20_000_000
    assert federation.client().available_models() == [federation.model_type]
    assert time.monotonic() - begin < 15


@pytest.fixture
def broken(tmp_path, caplog):
    """A server of its own, whose disk fails."""
    made = Federation(tmp_path / "root")
    with made.server:
        yield made


def test_a_disk_that_fails_is_500_without_details(broken, caplog):
    folder = broken.root / "models" / broken.model_type
    (folder / "chunks").write_bytes(b"a file where a folder should be")
    answer = broken.form("upload_model")
    assert (answer.status_code, answer.json()) == (500, {"message": "the server failed; its log says why"})
    (folder / "model.json").write_bytes(b"{")
    (folder / "1.model").write_bytes(b"x")
    assert broken.post("info_model", model_type=broken.model_type).status_code == 500
    assert [line[2] for line in broken.accounts.logged()[-2:]] == ["upload_model", "info_model"]
    (broken.root / "accounts.sqlite").write_bytes(b"no database" * 1000)
    assert broken.post("get_available_models").status_code == 500
    assert "Traceback" not in caplog.text
    assert str(broken.root) not in caplog.text + answer.text


def test_no_key_is_in_any_file_log_or_error(broken, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    (tmp_path / "u.delta").write_bytes(b"x" * 50)
    told = []
    for user in (*broken.keys, "wrong"):
        client = broken.client(user, chunk_bytes=20)
        for call in (
            client.available_models,
            lambda client=client: client.model_info(broken.model_type),
            lambda client=client: client.upload(broken.model_type, tmp_path / "u.delta", 0.5),
            lambda client=client: client.publish_model(broken.model_type, tmp_path / "u.delta"),
            lambda client=client: client.pending_uploads(broken.model_type),
        ):
            try:
                told.append(repr(call()))
            except (AccessDeniedError, ServerAnswerError) as error:
                told += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
        told += [repr(client), repr(vars(client))]
    for user in broken.keys:
        broken.form("upload_model", user, dice=f"{broken.keys[user]}", filename=broken.keys[user], total_chunks="1")
        broken.post("log", user, message=json.dumps(broken.keys))
        broken.post(broken.keys[user][:8], user)
    files = [path for path in broken.root.rglob("*") if path.is_file()]
    assert len(files) > 4
    secrets = [key.split(".")[1] for key in broken.keys.values()]
    for secret in secrets:
        assert [path.name for path in files if secret.encode() in path.read_bytes() or secret in str(path)] == []
        assert secret not in caplog.text + "".join(told) + repr(broken.server)


def test_a_server_that_was_stopped_is_told_as_unreachable(tmp_path):
    made = Federation(tmp_path / "root")
    with made.server:
        settings = Settings(folder=tmp_path, server=made.url, api_key=made.keys["site"], timeout_s=60.0)
        assert connect(settings).available_models() == [made.model_type]
    retrying = Retrying(pause=lambda seconds: None)
    transport = HttpTransport(settings.server, settings.api_key, timeout_s=1.0, retrying=retrying)
    with pytest.raises(ServerUnreachableError):
        FederationClient(transport).available_models()


def test_a_root_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(StorageError):
        RunningServer(tmp_path / "root")
