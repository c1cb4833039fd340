"""Starting and stopping the embedded server: what is missing is told in one line, and Ctrl-C ends it quietly."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests

from dafne_dante.errors import SettingsError
from dafne_dante.federation.running import RunningServer, serve

SERVE = (
    "import sys, pathlib; from dafne_dante.federation.running import serve; serve(pathlib.Path(sys.argv[1]), {port})"
)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize("package", ["uvicorn", "fastapi"])
def test_a_missing_extra_is_told_with_its_cure(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "dafne_dante.federation.server", raising=False)
    for start in (lambda: RunningServer(tmp_path), lambda: serve(tmp_path, 0)):
        with pytest.raises(SettingsError, match=r"pip install 'dafne-dante\[server\]'"):
            start()


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port}"):
            serve(tmp_path, port)


def test_two_servers_take_ports_of_their_own_and_give_them_back(tmp_path):
    with RunningServer(tmp_path / "a") as first, RunningServer(tmp_path / "b") as second:
        assert first.url != second.url
        for server in (first, second):
            assert requests.post(server.url + "info_model", json={}, timeout=60).status_code == 401
            assert server.url.startswith("http://127.0.0.1:")
    for server in (first, second):
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serving_ends_quietly_when_it_is_told_to(tmp_path, stop):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE.format(port=port), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_until_ready(port, process)
        process.send_signal(stop)
        out, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (0, -stop)
    assert (out, told) == (b"", b"")


def wait_until_ready(port, process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.post(f"http://127.0.0.1:{port}/info_model", json={}, timeout=60).status_code == 401:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("the server did not start")
