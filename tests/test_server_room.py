"""What one user may have waiting on the embedded server, and the space on its disk that no upload takes."""

import hashlib
import json
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import requests
from federations import BUSY, Federation
from test_running import free_port, wait_until_ready

from dafne_dante.errors import ServerUnreachableError
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.retrying import Retrying
from dafne_dante.federation.server_room import Room
from dafne_dante.federation.shelf import Shelf
from dafne_dante.federation.transport import HttpTransport


@pytest.fixture
def start(tmp_path):
    running = []

    def begin(**limits):
        made = Federation(tmp_path / f"server{len(running)}", replace(BUSY, **limits))
        running.append(made.server.__enter__())
        return made

    yield begin
    for server in running:
        server.__exit__(None, None, None)


def waiting(federation):
    return sorted((one.username, one.size) for one in federation.uploads())


def test_a_user_has_so_many_bytes_waiting_and_no_more(start):
    federation = start(pending_bytes=1000)
    federation.accounts.add_user("site-b", access=[federation.model_type])
    other = federation.accounts.rotate("site-b")
    assert federation.form("upload_model", content=b"x" * 600).status_code == 200
    answer = federation.form("upload_model", content=b"x" * 600)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3600")
    assert federation.form("upload_model", content=b"x" * 400).status_code == 200
    assert federation.form("upload_model", other, content=b"x" * 600).status_code == 200, "has a share of its own"
    assert waiting(federation) == [("site", 400), ("site", 600), ("site-b", 600)]
    assert list((federation.root / "models" / federation.model_type / "chunks").iterdir()) == []


def test_what_was_merged_makes_room(start):
    federation = start(pending_bytes=1000)
    federation.form("upload_model", content=b"x" * 900)
    assert federation.form("upload_model", content=b"x" * 900).status_code == 429
    (upload,) = federation.client("operator").pending_uploads(federation.model_type)
    federation.client("operator").delete_upload(federation.model_type, upload.filename)
    assert federation.form("upload_model", content=b"x" * 900).status_code == 200


def test_parts_that_are_never_finished_count_too(start):
    federation = start(pending_bytes=1000)

    def part(name):
        return federation.form(
            "upload_model", content=b"x" * 300, chunk_index="0", total_chunks="9", filename=name
        ).status_code

    assert [part(name) for name in "abcd"] == [200, 200, 200, 429]
    assert federation.form("upload_model", content=b"x" * 300).status_code == 429
    folders = list((federation.root / "models" / federation.model_type / "chunks").iterdir())
    assert len(folders) == 3


def test_small_files_are_counted_as_files(start):
    federation = start(pending_files=3)
    assert [federation.form("upload_model").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_another_types_uploads_count_as_well(start):
    federation = start(pending_bytes=1000)
    federation.shelf.add_type("Other", {})
    federation.accounts.permit("site", "Other", ["upload"])
    federation.form("upload_model", content=b"x" * 600)
    assert federation.form("upload_model", content=b"x" * 600, model_type="Other").status_code == 429


def test_a_merged_model_is_no_users_share(start):
    federation = start(pending_bytes=10)
    content = b"x" * 500
    digest = hashlib.sha256(content).hexdigest()
    assert federation.form("upload_merged_model", "operator", content=content, sha256=digest).status_code == 200


def test_a_disk_in_its_reserve_takes_no_file_but_answers_and_lets_the_operator_clear_it(start):
    federation = start()
    federation.form("upload_model", content=b"waits")
    federation.server.__exit__(None, None, None)
    full = Federation.__new__(Federation)
    full.__dict__.update(federation.__dict__)
    full.server = type(federation.server)(federation.root, limits=replace(BUSY, reserve_bytes=1 << 60))
    with full.server:
        answer = full.form("upload_model")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3600")
        assert full.form("upload_merged_model", "operator", sha256="a" * 64).status_code == 503
        assert full.client().available_models() == [full.model_type]
        (upload,) = full.client("operator").pending_uploads(full.model_type)
        full.client("operator").delete_upload(full.model_type, upload.filename)
    assert waiting(full) == []


def test_a_file_without_room_is_refused_before_it_is_sent(start):
    federation = start(reserve_bytes=1 << 60)
    host, port = federation.url.removeprefix("http://").strip("/").split(":")
    head = "POST /upload_model HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: 200000\r\n\r\n".encode())
        assert b" 503 " in connection.makefile("rb").readline()


def test_whoever_serves_chooses_the_bounds(tmp_path):
    with Federation(tmp_path / "root").server:
        pass
    port = free_port()
    options = ["--root", str(tmp_path / "root"), "--port", str(port), "--reserve-gib", "1000000"]
    process = subprocess.Popen([sys.executable, "-m", "dafne_dante", "serve", *options], stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(port, process)
        address, form = f"http://127.0.0.1:{port}/upload_model", {"model_binary": ("a", b"x")}
        assert requests.post(address, data={}, files=form, timeout=20).status_code == 503
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_room_is_what_is_free_without_the_reserve(tmp_path):
    shelf = Shelf(tmp_path)
    assert Room(tmp_path, shelf, replace(BUSY, reserve_bytes=0)).takes(1)
    assert not Room(tmp_path, shelf, replace(BUSY, reserve_bytes=0)).takes(1 << 60)
    assert not Room(tmp_path, shelf, replace(BUSY, reserve_bytes=1 << 60)).takes(1)


def test_a_site_keeps_what_there_was_no_room_for(start, tmp_path):
    federation = start(pending_bytes=10)
    (tmp_path / "u.delta").write_bytes(b"x" * 50)
    transport = HttpTransport(federation.url, federation.keys["site"], retrying=Retrying(pause=lambda seconds: None))
    with pytest.raises(ServerUnreachableError) as raised:
        FederationClient(transport).upload(federation.model_type, tmp_path / "u.delta", 0.5)
    assert not raised.value.may_have_arrived
    log = (federation.root / "log" / "requests.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in log if "upload_model" in line] == [429], "it does not ask again soon"
