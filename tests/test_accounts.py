"""Keys are shown once, kept as scrypt hashes, refused at once when revoked, and found in no file."""

import hashlib
import sqlite3
import stat
import threading

import pytest

from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.federation import accounts as module
from dafne_dante.federation.accounts import Account, Accounts


def test_a_key_finds_its_account_and_rights(tmp_path):
    accounts = Accounts(tmp_path)
    key = accounts.add_user("site-B", access=["Brain", "Leg"])
    operator = accounts.add_user("operator", merge=["Brain"])
    assert accounts.find(key) == Account(
        "site-B", frozenset({"Brain", "Leg"}), frozenset({"Brain", "Leg"}), frozenset()
    )
    assert accounts.find(operator) == Account("operator", *[frozenset({"Brain"})] * 3)
    assert [one.name for one in accounts.list_users()] == ["operator", "site-B"]
    # A second look goes by memory, and another process knows nothing of that.
    assert accounts.find(key) == Accounts(tmp_path).find(key)


def wrong_keys(key):
    key_id, secret = key.split(".")
    flipped = "A" if secret[-1] != "A" else "B"
    return [
        "", ".", key_id, f"{key_id}.", f".{secret}", secret, f"{key_id}.{secret[:-1]}",
        f"{key_id}.{secret[:-1]}{flipped}",
        f"{key_id}.{secret}x", f"00000000.{secret}", f"{key_id}.{'A' * 32}", key.upper(), f" {key}", f"{key}\n",
        f"{key}\0", "\ud800.\ud800", "é" * 41, "x" * 100_000, f"{key_id}' OR '1'='1.{secret}", "%.%",
    ]  # fmt: skip


def test_any_other_text_finds_nobody_also_after_the_key_was_used(tmp_path):
    accounts = Accounts(tmp_path)
    key = accounts.add_user("B", access=["Brain"])
    assert accounts.find(key) is not None
    assert [wrong for wrong in wrong_keys(key) if accounts.find(wrong) is not None] == []


def test_a_wrong_key_costs_one_hash_whether_its_id_exists_or_not(tmp_path, monkeypatch):
    accounts = Accounts(tmp_path)
    key = accounts.add_user("B")
    hashed, scrypt = [], hashlib.scrypt

    def counting(secret, **parameters):
        hashed.append((parameters["n"], parameters["r"], parameters["p"], len(parameters["salt"])))
        return scrypt(secret, **parameters)

    monkeypatch.setattr(module.hashlib, "scrypt", counting)
    for wrong in (f"{key[:8]}.{'A' * 32}", f"00000000.{'A' * 32}", "no key"):
        assert accounts.find(wrong) is None
    assert hashed == [(2**14, 8, 5, 16)] * 3
    for _ in range(3):
        assert accounts.find(key) is not None
    assert len(hashed) == 4  # a right key is hashed once a process


def test_a_revoked_key_is_refused_at_once_also_by_a_server_that_runs(tmp_path):
    running, command = Accounts(tmp_path), Accounts(tmp_path)
    key = running.add_user("B", access=["Brain"])
    assert running.find(key) is not None
    command.revoke("B")
    assert running.find(key) is None
    again = command.add_user("B")
    assert running.find(key) is None
    assert running.find(again) == Account("B", *[frozenset()] * 3)  # and none of the old rights


def test_revoking_nobody_is_told(tmp_path):
    with pytest.raises(SettingsError, match="no B"):
        Accounts(tmp_path).revoke("B")


@pytest.mark.parametrize("name", ["", "a b", "a_b", "../x", "a.b", "é", "x" * 65, "a\n", "a/b"])
def test_a_name_that_would_not_fit_into_a_file_name_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match="letters, digits"):
        Accounts(tmp_path).add_user(name)


def test_a_name_is_taken_once(tmp_path):
    accounts = Accounts(tmp_path)
    key = accounts.add_user("B")
    with pytest.raises(SettingsError, match="B exists"):
        accounts.add_user("B")
    assert accounts.find(key) is not None


def test_the_file_is_its_owners_and_holds_no_key(tmp_path):
    accounts = Accounts(tmp_path)
    keys = [accounts.add_user(name) for name in ("a", "b")]
    for key in keys:
        accounts.find(key)
        accounts.log("a", "log", f"my key is {key}, keep it")
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not [key for key in keys if key[9:].encode() in path.read_bytes()]
    assert [detail for _, _, _, detail in accounts.logged()] == ["my key is (key), keep it"] * 2
    assert all(key[9:] not in repr((accounts, vars(accounts), accounts.list_users())) for key in keys)


def test_the_log_is_plain_bounded_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_LOG_LINES", 5)
    accounts = Accounts(tmp_path)
    accounts.log("a", "log", "one\ntwo\x1b[2J\ud800" + "x" * 1000)
    detail = accounts.logged()[0][3]
    assert detail.startswith("one two [2J x")
    assert len(detail) == 500
    for number in range(10):
        accounts.log("a", "log", str(number))
    assert [line[3] for line in accounts.logged()] == ["5", "6", "7", "8", "9"]


def test_threads_do_not_disturb_each_other(tmp_path):
    accounts = Accounts(tmp_path)
    keys = {f"u{number}": accounts.add_user(f"u{number}") for number in range(3)}
    found = []

    def work(name):
        for number in range(5):
            found.append(accounts.find(keys[name]).name == name)
            accounts.log(name, "log", str(number))

    threads = [threading.Thread(target=work, args=(name,)) for name in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 15
    assert len(accounts.logged()) == 15


def test_a_root_that_is_a_file_is_a_fault_of_the_disk(tmp_path):
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(StorageError, match="root"):
        Accounts(tmp_path / "root")


def test_a_damaged_file_is_a_fault_of_the_disk(tmp_path):
    (tmp_path / "accounts.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match=r"accounts\.sqlite") as raised:
        Accounts(tmp_path)
    assert str(tmp_path) not in str(raised.value)


def test_a_folder_in_the_files_place_is_a_fault_of_the_disk(tmp_path):
    (tmp_path / "accounts.sqlite").mkdir()
    with pytest.raises(StorageError, match=r"accounts\.sqlite"):
        Accounts(tmp_path)


def test_a_locked_or_emptied_file_does_not_let_anybody_in(tmp_path):
    accounts = Accounts(tmp_path)
    key = accounts.add_user("B")
    accounts.find(key)
    connection = sqlite3.connect(tmp_path / "accounts.sqlite")
    connection.execute("DELETE FROM users")
    connection.commit()
    connection.close()
    assert accounts.find(key) is None


def test_each_right_stands_for_itself_and_merging_for_all(tmp_path):
    accounts = Accounts(tmp_path)
    key = accounts.add_user("B", read=["Leg"], upload=["Brain"], merge=["Knee"])
    found = accounts.find(key)
    assert (found.read, found.upload, found.merge) == ({"Leg", "Knee"}, {"Brain", "Knee"}, {"Knee"})


def test_rights_are_set_for_one_type_at_once(tmp_path):
    running, command = Accounts(tmp_path), Accounts(tmp_path)
    key = running.add_user("B", access=["Brain", "Leg"])
    assert running.find(key) is not None
    command.permit("B", "Brain", ["read"])
    assert running.find(key) == Account("B", frozenset({"Brain", "Leg"}), frozenset({"Leg"}), frozenset())
    command.permit("B", "Brain", ["merge"])
    assert running.find(key) == Account("B", *[frozenset({"Brain", "Leg"})] * 2, frozenset({"Brain"}))
    command.permit("B", "Brain", [])
    assert running.find(key) == Account("B", *[frozenset({"Leg"})] * 2, frozenset())
    for name, rights in (("C", ["read"]), ("B", ["write"])):
        with pytest.raises(SettingsError):
            command.permit(name, "Brain", rights)


def test_a_key_is_replaced_at_once_and_its_rights_stay(tmp_path):
    running, command = Accounts(tmp_path), Accounts(tmp_path)
    old = running.add_user("B", access=["Brain"])
    found = running.find(old)
    new = command.rotate("B")
    assert new.split(".")[0] != old.split(".")[0]
    assert running.find(old) is None
    assert running.find(f"{new[:8]}.{old[9:]}") is None
    assert running.find(new) == found
    with pytest.raises(SettingsError, match="no C"):
        command.rotate("C")


def test_rights_of_an_older_file_are_kept(tmp_path):
    key = Accounts(tmp_path).add_user("B")
    with sqlite3.connect(tmp_path / "accounts.sqlite") as connection:
        connection.execute("CREATE TABLE permissions (user_id INTEGER, model_type TEXT, kind TEXT)")
        connection.executemany(
            "INSERT INTO permissions VALUES (1, ?, ?)", [("Leg", "access"), ("Brain", "access"), ("Brain", "merge")]
        )
    connection.close()
    for _ in range(2):
        found = Accounts(tmp_path).find(key)
        assert (found.read, found.upload, found.merge) == ({"Leg", "Brain"}, {"Leg", "Brain"}, {"Brain"})
