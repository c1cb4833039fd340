"""The commands outbox and audit, against a real server: what a person in IT sees, and exit codes."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from deltas import KEY, make_delta
from federations import LIMIT, Federation
from outboxes import delta

from dafne_dante.config import Settings, load_settings, write_settings
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.sealing import create_seal_key, seal
from dafne_dante.federation.outbox import open_outbox
from dafne_dante.federation.withdrawal import make_withdrawal


class Site:
    """A federation, and the configuration folder of a site that has queued an update for it."""

    def __init__(self, root, command):
        self.federation, self.configuration, self.command = Federation(root / "server"), root / "configuration", command
        self.type = self.federation.model_type
        (root / "first.model").write_bytes(b"a model")
        self.federation.shelf.publish_copy(self.type, root / "first.model")

    def set_up(self, **changes):
        settings = {"server": self.federation.url, "api_key": self.federation.keys["site"], "retries": 0, **changes}
        write_settings(Settings(folder=self.configuration, **settings))

    @property
    def outbox(self):
        return open_outbox(load_settings(self.configuration))

    def queue(self, number=1, content=None):
        content = delta(number, model_type=self.type) if content is None else content
        return self.outbox.queue(content, server=self.federation.url, dice=0.5, trigger="nightly")

    def run(self, *words):
        code, out, err = self.command(*words, "--json")
        assert self.federation.keys["site"] not in out + err
        return code, json.loads(out) if out else None, err

    def deltas(self):
        return [
            self.federation.shelf.upload_path(self.type, one.filename).read_bytes() for one in self.federation.uploads()
        ]


@pytest.fixture
def site(tmp_path, command):
    site = Site(tmp_path, command)
    with site.federation.server:
        site.set_up()
        yield site


def test_before_anything_was_queued_there_is_nothing_and_nothing_is_made(command, tmp_path):
    assert json.loads(command("outbox", "list", "--json")[1])["updates"] == []
    assert command("audit", "verify", "--json")[0] == 0
    assert "nothing has left" in command("audit", "show")[1]
    for words in (("show", "abcd"), ("cancel", "abcd"), ("retry", "abcd")):
        code, out, err = command("outbox", *words)
        assert (code, out, err.count("\n")) == (1, "", 1)
    assert not (tmp_path / "configuration").exists()


def test_from_waiting_to_sent_and_what_it_says_about_it(site):
    entry = site.queue()
    code, answer, _ = site.run("outbox", "list")
    [listed] = answer["updates"]
    assert (code, listed["state"], listed["update_id"], answer["waiting"]) == (0, "waiting", entry.update_id, 1)
    code, answer, _ = site.run("outbox", "send")
    assert (code, answer["sent"], answer["not_sent"], answer["updates"][0]["state"]) == (0, 1, 0, "sent")
    assert site.run("outbox", "send")[1]["updates"] == []
    assert len(site.deltas()) == 1
    assert site.run("outbox", "list")[1]["updates"] == []
    assert [one["state"] for one in site.run("outbox", "list", "--all")[1]["updates"]] == ["sent"]
    records = site.run("audit", "show")[1]["records"]
    assert [record["event"] for record in records] == ["leaving", "outcome"]
    leaving = records[0]
    assert (leaving["to"], leaving["model_type"], leaving["trigger"]) == (site.federation.url, site.type, "nightly")
    assert (leaving["sha256"], leaving["bytes"]) == (entry.sha256, entry.size_bytes)
    assert site.run("outbox", "show", entry.update_id)[1]["records"] == records
    text = site.command("audit", "show")[1]
    for words in (entry.sha256, site.federation.url, "nightly", f"{entry.size_bytes} bytes", site.type, "arrived"):
        assert words in text
    assert len(site.command("audit", "show", "--last", 1)[1].splitlines()) == 1


def test_a_wrong_key_holds_an_update_until_the_settings_change(site):
    site.queue()
    site.set_up(api_key="wrong")
    code, answer, err = site.run("outbox", "send")
    assert (code, answer["sent"], "401" in err) == (1, 0, True)
    assert (answer["updates"][0]["why"], answer["updates"][0]["held"]) == ("permission", True)
    assert site.run("outbox", "send")[1]["updates"] == []
    assert "held until you retry, or change the settings" in site.command("outbox", "list")[1]
    assert site.run("audit", "show")[1]["records"] == []
    site.set_up()
    assert site.run("outbox", "send")[1]["sent"] == 1
    assert len(site.deltas()) == 1


def test_a_key_without_the_permission_is_told_and_a_retry_works_once_it_has_it(site):
    entry = site.queue()
    site.set_up(api_key=site.federation.keys["stranger"])
    code, _, err = site.run("outbox", "retry", entry.update_id)
    assert (code, "403" in err, site.deltas()) == (1, True, [])
    site.set_up()
    assert site.run("outbox", "retry", "--all")[1]["sent"] == 1


def test_a_type_without_the_capability_is_told_and_gets_it_once_it_has_one(site):
    site.federation.shelf.add_type(site.type, {"categories": ["a"]})
    entry = site.queue()
    code, answer, err = site.run("outbox", "send")
    assert (code, answer["updates"][0]["why"], "does not say so" in err) == (1, "no-deltas", True)
    assert site.deltas() == []
    assert "does not say that its operator takes deltas" in site.command("outbox", "show", entry.update_id)[1]
    site.federation.shelf.add_type(site.type, {"dafne_dante": {"delta": 1}})
    assert site.run("outbox", "retry", entry.update_id)[1]["sent"] == 1


def test_what_is_larger_than_the_server_takes_is_known_by_its_401(site):
    noise = torch.randn(LIMIT, generator=torch.Generator().manual_seed(1))
    site.queue(content=make_delta([WeightUpdate("conv.bias", noise)], model_type=site.type))
    code, answer, _ = site.run("outbox", "send")
    assert (code, answer["updates"][0]["why"], answer["updates"][0]["held"]) == (1, "too-large", True)
    assert site.run("audit", "show")[1]["records"][1]["outcome"] == "refused"


def test_what_waits_is_shown_by_its_update_id_and_what_left_is_gone(site):
    entry = site.queue()
    file = site.run("outbox", "show", entry.update_id)[1]["file"]
    assert Path(file).read_bytes() == delta(model_type=site.type)
    by_id, by_file = (site.run("inspect", name)[1] for name in (entry.update_id[:8], file))
    assert by_id == by_file
    assert by_id["update_id"] == entry.update_id
    assert "file: " in site.command("outbox", "show", entry.update_id)[1]
    site.run("outbox", "send")
    assert site.run("outbox", "show", entry.update_id)[1]["file"] is None
    code, _, err = site.run("inspect", entry.update_id)
    assert (code, "its file is gone" in err) == (1, True)
    assert site.run("inspect", "abcdef")[0] == 1


def test_what_else_leaves_is_told_for_what_it_is(site, tmp_path):
    site.run("keys", "create")
    entry, key = site.queue(), create_seal_key(tmp_path / "operator")
    words = ("bundle", "export", "--outbox", "--server", site.federation.url, "--to", tmp_path / "a.bundle")
    assert site.run(*words)[0] == 0
    (tmp_path / "a.sealed").write_bytes(seal(delta(), key))
    (tmp_path / "a.withdrawal").write_bytes(make_withdrawal(entry.update_id, site.type, KEY))
    told = {name: site.run("inspect", tmp_path / f"a.{name}")[1] for name in ("bundle", "sealed", "withdrawal")}
    assert told["bundle"]["file"] == "bundle with updates of a site"
    assert entry.update_id in told["bundle"]["items"][0]
    assert told["sealed"]["sha256"] == hashlib.sha256((tmp_path / "a.sealed").read_bytes()).hexdigest()
    assert (told["withdrawal"]["file"], told["withdrawal"]["update_id"]) == ("withdrawal", entry.update_id)
    for name, one in told.items():
        assert one["statement"] in site.command("inspect", tmp_path / f"a.{name}")[1]


def test_cancelled_is_cancelled(site):
    entry = site.queue()
    assert site.run("outbox", "cancel", entry.update_id[:6])[1]["state"] == "cancelled"
    assert site.run("outbox", "send")[1]["updates"] == []
    code, _, err = site.run("outbox", "cancel", entry.update_id)
    assert (code, "cancelled" in err) == (1, True)
    assert site.command("outbox", "retry")[0] == 2
    assert site.deltas() == []


def test_what_was_never_tried_is_to_be_tried_now(site):
    entry = site.queue()
    assert site.run("outbox", "show", entry.update_id)[1]["next_try"] == "now"
    assert "(next try now)" in site.command("outbox", "list")[1]
    site.set_up(server="http://127.0.0.1:9/", api_key="x")
    site.run("outbox", "cancel", entry.update_id)
    other = site.outbox.queue(delta(2, model_type=site.type), server="http://127.0.0.1:9/", dice=0.5, trigger="nightly")
    site.run("outbox", "send")
    assert site.run("outbox", "show", other.update_id)[1]["next_try"].startswith("20")


def test_cancelling_what_was_packed_says_how_to_take_it_back(site, tmp_path):
    entry = site.queue()
    words = ("bundle", "export", "--outbox", "--server", site.federation.url, "--to", tmp_path / "b")
    assert site.run(*words)[0] == 0
    code, answer, err = site.run("outbox", "cancel", entry.update_id)
    assert (code, answer["state"]) == (0, "cancelled")
    assert f"it was packed into a bundle; if that is handed over: dafne-dante withdraw {entry.update_id}" in err
    code, _, err = site.run("outbox", "cancel", site.queue(2).update_id)
    assert (code, "packed" in err) == (0, False)


def test_another_server_gets_neither_the_update_nor_the_key(site):
    entry = site.queue()
    site.set_up(server="http://127.0.0.1:9/")
    assert site.run("outbox", "send")[:2] == (0, {"updates": [], "sent": 0, "not_sent": 0})
    code, answer, err = site.run("outbox", "retry", entry.update_id)
    assert (code, site.federation.url in err, answer["updates"][0]["state"]) == (1, True, "waiting")
    assert site.run("outbox", "retry", entry.update_id, "--server", site.federation.url)[1]["sent"] == 1


def test_the_text_of_the_log_says_what_left_by_stick_and_which_bytes_left_sealed(site, tmp_path):
    key = create_seal_key(tmp_path / "operator")
    site.federation.shelf.add_type(site.type, {"dafne_dante": {"delta": 1, "seal_key": key}})
    site.set_up(seal_key=key)
    entry = site.queue()
    words = ("bundle", "export", "--outbox", "--server", site.federation.url, "--to", tmp_path / "b")
    assert site.run(*words)[0] == 0
    packed = site.run("audit", "show")[1]["records"][-1]
    [line] = site.command("audit", "show")[1].splitlines()
    for told in (entry.update_id[:8], packed["sha256"], entry.sha256, "nightly", packed["bundle"], site.type, "delta"):
        assert told in line
    assert packed["sha256"] != entry.sha256
    site.run("outbox", "send")
    leaving = site.run("audit", "show")[1]["records"][-2]
    line = site.command("audit", "show")[1].splitlines()[-2]
    for told in (entry.sha256, leaving["sealed_sha256"], f"{leaving['sealed_bytes']} bytes", "sealed"):
        assert told in line


EVENTS = {
    "leaving": {"attempt": 1, "kind": "delta", "trigger": "nightly", "full_model_sha256": "f" * 64},
    "outcome": {"attempt": 1, "outcome": "arrived"},
    "packed": {"bundle": "b-1", "trigger": "nightly", "withdraws": "u-0"},
    "receipt": {"bundle": "b-1"},
    "handed-over": {"bundle": "b-1"},
    "cancelled": {"attempts": 3},
    "withdrawing": {"model_type": "Leg"},
    "withdrawn": {"model_type": "Leg", "outcome": "arrived"},
}


@pytest.mark.parametrize("event", EVENTS)
def test_no_event_is_bare_and_every_one_is_in_the_documentation(site, event):
    facts = {"update_id": "abcdef0123", "to": "https://a.example/", "sha256": "a" * 64, "bytes": 9}
    site.outbox.audit.append(event, {**facts, **EVENTS[event]})
    line = site.command("audit", "show")[1]
    assert "update abcdef01" in line
    for fact, value in EVENTS[event].items():
        assert fact in ("kind",) or str(value) in line
    documentation = (Path(__file__).parent.parent / "docs" / "outbox.md").read_text(encoding="utf-8")
    assert f"`{event}`" in documentation


def test_verify_names_the_line_that_somebody_changed(site):
    for number in (1, 2):
        site.queue(number)
        site.run("outbox", "send")
    code, answer, _ = site.run("audit", "verify")
    assert (code, answer["records"], answer["fault"]) == (0, 4, "")
    path = site.configuration / "outbox" / "audit.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"nightly", b"command", 1))
    code, answer, _ = site.run("audit", "verify")
    assert (code, answer["line"]) == (1, 2)
    assert "line 2 is wrong" in site.command("audit", "verify")[1]
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    code, answer, _ = site.run("audit", "verify")
    assert (code, answer["line"]) == (1, 4)
    assert "the outbox remembers" in answer["fault"]
