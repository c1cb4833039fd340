"""Settings changed from a dialog: the file keeps its comments, the key goes into the keyring, faults change nothing."""

import pytest

from dafne_dante import config, keychain
from dafne_dante.config import SETTINGS_FILE, load_settings
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.federation.client import connect
from dafne_dante.settings_editing import change_settings

SERVER = "https://federation.example/"
SECRET = "k" * 24


class Chain:
    """A keyring that keeps what it is given."""

    def __init__(self):
        self.kept = {}

    def get(self, name):
        return self.kept.get(name)

    def put(self, name, text):
        self.kept[name] = text

    def remove(self, name):
        self.kept.pop(name, None)


def load(folder):
    return load_settings(folder, environment={"DAFNE_DANTE_SITE_CONFIG": str(folder / "nothing")})


def test_a_change_keeps_comments_order_and_everything_else(tmp_path):
    path = tmp_path / SETTINGS_FILE
    path.write_text('# ours\n[worker]\nthreads = 3 # not more\n\n[labels]\n"Vastus lat" = "vastus"\n')
    change_settings(tmp_path, {"after_save_s": 7.0, "start": "21:30", "allow_full_model": True})
    text = path.read_text()
    assert text.startswith("# ours\n[worker]\nthreads = 3 # not more\n")
    settings = load(tmp_path)
    assert (settings.worker.threads, settings.worker.after_save_s, settings.nightly.start) == (3, 7.0, "21:30")
    assert settings.allow_full_model and settings.annotations.labels == {"vastus": ("Vastus lat",)}
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_file_the_explained_one_is_the_beginning(tmp_path):
    change_settings(tmp_path / "new", {"threads": 2})
    text = (tmp_path / "new" / SETTINGS_FILE).read_text()
    assert "# timeout_s = 60.0" in text
    assert load(tmp_path / "new").worker.threads == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server": "http://elsewhere.example"}, "https://"),
        ({"threads": -1, "start": "25:00"}, "threads must .*; .*HH:MM|HH:MM.*; .*threads must"),
        ({"noise_multiplier": 1.0}, "clip_norm"),
        ({"automatic_method": "guess"}, "one of auto, lora"),
    ],
)
def test_what_is_not_valid_is_told_and_changes_nothing(tmp_path, changes, words):
    change_settings(tmp_path, {"threads": 2})
    before = (tmp_path / SETTINGS_FILE).read_bytes()
    with pytest.raises(SettingsError, match=words):
        change_settings(tmp_path, {"memory_gib": 9.0, **changes})
    assert (tmp_path / SETTINGS_FILE).read_bytes() == before


def test_a_file_that_is_no_toml_is_told_without_its_text_and_stays(tmp_path):
    (tmp_path / SETTINGS_FILE).write_text(f'api_key = "{SECRET}\n')
    with pytest.raises(SettingsError) as caught:
        change_settings(tmp_path, {"threads": 2})
    assert SECRET not in str(caught.value)
    assert SECRET in (tmp_path / SETTINGS_FILE).read_text()


def test_the_key_goes_into_the_keyring_and_comes_from_there(tmp_path, monkeypatch):
    chain = Chain()
    told = change_settings(tmp_path, {"server": SERVER[:-1], "api_key": SECRET}, find_keychain=lambda: chain)
    assert "keyring" in told and chain.kept == {SERVER: SECRET}
    assert SECRET not in (tmp_path / SETTINGS_FILE).read_text()
    monkeypatch.setattr(keychain, "system_keychain", lambda service: chain)
    assert load(tmp_path).api_key == SECRET
    assert load(tmp_path).key_fault == ""


class Locked(Chain):
    """A keyring that nobody has unlocked."""

    def get(self, name):
        raise StorageError("expected the operating system's keyring to answer, found it refused (X); unlock it")


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (Chain(), "found no such key in it; enter the key again"),
        (Locked(), "unlock it, or enter the server's key again"),
        (None, "found no keyring; enter the key again"),
    ],
    ids=["empty", "locked", "none"],
)
def test_a_key_that_the_keyring_does_not_give_leaves_everything_else_at_work(tmp_path, monkeypatch, chain, words):
    change_settings(tmp_path, {"server": SERVER, "api_key": SECRET, "threads": 2}, find_keychain=Chain)
    monkeypatch.setattr(keychain, "system_keychain", lambda service: chain)
    settings = load(tmp_path)
    assert (settings.server, settings.api_key, settings.worker.threads) == (SERVER, "", 2)
    assert words in settings.key_fault
    with pytest.raises(SettingsError, match=words.split(";")[0]):
        connect(settings)
    told = change_settings(tmp_path, {"api_key": SECRET}, find_keychain=lambda: None)
    assert "no keyring" in told
    repaired = load(tmp_path)
    assert (repaired.api_key, repaired.key_fault) == (SECRET, ""), "the dialog can repair it"


def test_another_server_alone_locks_nobody_out_and_says_that_it_needs_its_key(tmp_path, monkeypatch):
    chain = Chain()
    monkeypatch.setattr(keychain, "system_keychain", lambda service: chain)
    change_settings(tmp_path, {"server": SERVER, "api_key": SECRET}, find_keychain=lambda: chain)
    other = {"server": "https://other.example"}
    assert "no key for this server" in change_settings(tmp_path, other, find_keychain=lambda: chain)
    assert (load(tmp_path).server, load(tmp_path).api_key) == ("https://other.example/", "")
    assert "unlock" in change_settings(tmp_path, other, find_keychain=Locked)
    assert change_settings(tmp_path, {"server": SERVER}, find_keychain=lambda: chain) == ""
    assert load(tmp_path).api_key == SECRET
    assert change_settings(tmp_path, {"server": ""}, find_keychain=lambda: chain) == ""
    assert load(tmp_path).key_fault == "", "without a server no key is needed"


def test_without_a_keyring_the_key_is_in_the_file_and_it_is_said(tmp_path):
    told = change_settings(tmp_path, {"server": SERVER, "api_key": SECRET}, find_keychain=lambda: None)
    assert "no keyring" in told and SECRET not in told
    assert load(tmp_path).api_key == SECRET


def test_a_key_can_be_taken_away(tmp_path):
    change_settings(tmp_path, {"server": SERVER, "api_key": SECRET}, find_keychain=lambda: None)
    assert change_settings(tmp_path, {"api_key": ""}) == ""
    assert load(tmp_path).api_key == ""


def test_the_document_s_faults_are_those_of_loading():
    assert config.faults_of({"worker": {"threads": 2}, "labels": {"a": "b"}}) == []
    assert config.faults_of({"worker": {"thread": 2}}) == ["unknown setting worker.thread"]
