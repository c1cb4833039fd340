"""Fixtures that several tests share."""

import ipaddress
import signal
import socket
import sys

import keyring
import keyring.backends.null
import pytest
from sites import NEW_SCANNER, train_model, write_cases

from dafne_dante.cli import main


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """No test leaves this machine: a connection to anything but loopback is refused at once."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not ipaddress.ip_address(address[0]).is_loopback:
            raise OSError("tests do not leave this machine")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard():
    """Also where the tests run in the background of a shell, which then ignores SIGINT, as would what they start."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def no_keyring():
    """No test touches the keyring of whoever runs it."""
    keyring.set_keyring(keyring.backends.null.Keyring())


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a trained tiny model, cases of its own scanner and cases of another one; read only."""
    folder = tmp_path_factory.mktemp("trained")
    train_model(folder / "base.model")
    write_cases(folder / "own", (11, 12))
    write_cases(folder / "new", (21, 22, 23, 24), **NEW_SCANNER)
    return folder


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dafne-dante", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capfd.readouterr()
        return code, out, err

    return run
