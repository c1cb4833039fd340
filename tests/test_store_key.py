"""The key of the case store: made once, found again, and never replaced by one that opens nothing."""

import re
import stat
import subprocess
import sys

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.backends.null
import pytest

from dafne_dante.annotations.store.key import KEY_FILE, StoreKey, ensure_store_key, load_store_key
from dafne_dante.errors import StorageError, TrustError
from dafne_dante.keychain import system_keychain

SECRET = re.compile(rb"[A-Za-z0-9+/]{43}=")


class Chain:
    """A keychain in memory; a Keychain."""

    def __init__(self, *, refuses=False, forgets=False):
        self.kept, self.refuses, self.forgets = {}, refuses, forgets

    def get(self, name):
        if self.refuses:
            raise StorageError("locked")
        return self.kept.get(name)

    def put(self, name, text):
        if self.refuses:
            raise StorageError("locked")
        if not self.forgets:
            self.kept[name] = text

    def remove(self, name):
        del self.kept[name]


def ensure(folder, chain=None, store_exists=False):
    return ensure_store_key(folder, chain, store_exists=store_exists)


def test_without_a_keyring_the_key_is_in_a_file_of_its_owner(tmp_path):
    key = ensure(tmp_path / "new")
    path = tmp_path / "new" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (key.place, len(key.secret)) == ("file", 32)
    assert "no keyring" in key.note
    assert KEY_FILE in key.note
    again = ensure(tmp_path / "new")
    assert (again.secret, again.note) == (key.secret, ""), "it is said once"
    assert [path.name for path in (tmp_path / "new").iterdir()] == [KEY_FILE]
    assert ensure(tmp_path / "other").secret != key.secret


def test_with_a_keyring_no_file_holds_the_key(tmp_path):
    chain = Chain()
    key = ensure(tmp_path, chain)
    assert (key.place, key.note, len(chain.kept)) == ("keyring", "", 1)
    assert not SECRET.search((tmp_path / KEY_FILE).read_bytes())
    assert ensure(tmp_path, chain).secret == key.secret
    assert load_store_key(tmp_path, chain) == StoreKey(key.secret, "keyring")


@pytest.mark.parametrize("options", [{"refuses": True}, {"forgets": True}])
def test_a_keyring_that_does_not_keep_it_is_told_once_and_the_file_keeps_it(tmp_path, options):
    key = ensure(tmp_path, Chain(**options))
    assert key.place == "file"
    assert "keyring" in key.note
    assert ensure(tmp_path, Chain()) == StoreKey(key.secret, "file"), "a keyring that comes later changes nothing"


@pytest.mark.parametrize(("chain", "error", "words"), [
    (None, TrustError, "found no keyring"), (Chain(), TrustError, "found none"),
    (Chain(refuses=True), StorageError, "locked"),
])  # fmt: skip
def test_a_keyring_that_is_locked_or_empty_makes_no_second_key(tmp_path, chain, error, words):
    ensure(tmp_path, Chain())
    before = (tmp_path / KEY_FILE).read_bytes()
    with pytest.raises(error, match=words):
        ensure(tmp_path, chain)
    assert (tmp_path / KEY_FILE).read_bytes() == before


def test_a_lost_key_is_told_and_no_new_one_is_made(tmp_path):
    with pytest.raises(TrustError, match="restore it from a copy"):
        ensure(tmp_path / "folder", store_exists=True)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_can_read_is_refused(tmp_path, mode):
    ensure(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(TrustError, match="chmod 600"):
        ensure(tmp_path)


@pytest.mark.parametrize("content", [
    b"", b"dafne-dante-case-key 1\n", b"dafne-dante-case-key 2\nfile x\n", b"dafne-dante-case-key 1\nfile \n",
    b"dafne-dante-case-key 1\nfile AAAA\n", b"dafne-dante-case-key 1\nfile ????\n", b"\xff\xfe\n\n",
    b"dafne-dante-case-key 1\nnowhere AAAA\n", b"dafne-dante-case-key 1\nfile a b\n", b"x" * 5000,
])  # fmt: skip
def test_a_damaged_key_file_is_told_without_its_content_and_stays(tmp_path, content):
    ensure(tmp_path)
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises((TrustError, StorageError)) as caught:
        ensure(tmp_path)
    assert "AAAA" not in str(caught.value)
    assert (tmp_path / KEY_FILE).read_bytes() == content


def test_the_key_is_never_shown_and_its_purposes_have_nothing_in_common(tmp_path):
    key = ensure(tmp_path)
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
    derived = {key.derive(purpose) for purpose in ("case files", "headers", "key check", "case ids")}
    assert len({*derived, key.secret}) == 5
    assert key.case_ids == key.derive("case ids")


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot create the folder"):
        ensure(tmp_path / "file" / "folder")


def test_processes_that_make_a_key_at_the_same_time_go_on_with_one(tmp_path):
    program = (
        "import sys, pathlib, time; from dafne_dante.annotations.store.key import ensure_store_key as ensure\n"
        "folder = pathlib.Path(sys.argv[1]); print('ready', flush=True); sys.stdin.read()\n"
        "print(ensure(folder, None, store_exists=False).secret.hex())"
    )
    start = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], **start) for _ in range(4)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.close()
    secrets = {run.stdout.read() for run in runs}
    for run in runs:
        run.stdout.close()
        assert run.wait() == 0
    assert len(secrets) == 1
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


class Backend(keyring.backend.KeyringBackend):
    """A backend for secrets that raises what backends of other makers raise."""

    priority = 5

    def __init__(self, error=None):
        self.kept, self.error = {}, error

    def get_password(self, service, username):
        if self.error:
            raise self.error
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self.kept[service, username] = password

    def delete_password(self, service, username):
        del self.kept[service, username]


class InClear(Backend):
    priority = 0.5


@pytest.fixture
def use_backend():
    before = keyring.get_keyring()
    yield keyring.set_keyring
    keyring.set_keyring(before)


@pytest.mark.parametrize("backend", [keyring.backends.fail.Keyring, keyring.backends.null.Keyring, InClear])
def test_what_keeps_nothing_or_keeps_it_in_clear_is_no_keyring(use_backend, backend):
    use_backend(backend())
    assert system_keychain() is None


def test_a_real_backend_is_used(tmp_path, use_backend):
    backend = Backend()
    use_backend(backend)
    key = ensure(tmp_path, system_keychain())
    assert (key.place, len(backend.kept)) == ("keyring", 1)
    assert load_store_key(tmp_path, system_keychain()).secret == key.secret


class DBusError(Exception):
    """No kin of any error that we know."""


@pytest.mark.parametrize("error", [DBusError("secret=abc"), RuntimeError("secret=abc"), OSError("secret=abc")])
def test_whatever_a_backend_raises_is_one_of_our_errors_without_its_text(tmp_path, use_backend, error):
    use_backend(Backend(error))
    with pytest.raises(StorageError, match=type(error).__name__) as caught:
        system_keychain().get("name")
    assert "abc" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert ensure(tmp_path, system_keychain()).place == "file"
