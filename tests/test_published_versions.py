"""Versions as the operator sees them: a list, who contributed what, and the way back."""

import json
from dataclasses import replace

import pytest
import torch
from merging import QuickOperator
from test_operator import HEAD, TYPE

from dafne_dante.config import write_settings
from dafne_dante.delta.signing import ensure_signing_key, fingerprint, public_key_text
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.federation.ledger import Ledger, Store
from dafne_dante.federation.model_signature import changes_since_signing, read_signature, verified_release
from dafne_dante.federation.published_versions import hand_in, list_versions, roll_back, show_version
from dafne_dante.federation.publishing import Publisher, Statement
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import digest_weights


@pytest.fixture
def operator(tmp_path):
    return QuickOperator(tmp_path)


def merge(operator, amount, **options):
    operator.send(operator.delta(amount, **options), user=options.get("site", "site1"))
    return operator.merge().version


def test_the_ledger_tells_who_contributed_what(operator):
    operator.send(operator.delta(0.002, site="site1"), user="anna")
    operator.send(operator.delta(0.004, site="site2"), user="ben")
    version = operator.merge().version
    shown = show_version(operator.depot, TYPE, version, operator.settings)
    json.dumps(shown)
    assert shown["kind"] == "merge"
    assert {"mean", "ball", "box"} == set(shown["dice_before"]) == set(shown["dice_after"])
    assert shown["validation_cases"] == 1
    assert shown["lineage"] == [version, operator.first]
    found = {one["username"]: one for one in shown["contributions"]}
    assert set(found) == {"anna", "ben"}
    anna = found["anna"]
    assert (anna["site"], anna["cases"], anna["method"]) == ("site1", 4, "full")
    assert anna["key"] == fingerprint(public_key_text(operator.keys["site1"]))
    assert len(anna["content_sha256"]) == 64
    assert anna["base_sha256"] == digest_weights(operator.model.weights)
    newest, first = list_versions(operator.depot, TYPE, operator.settings)
    assert (newest.version, newest.updates, newest.contributors, newest.is_current) == (version, 2, 2, True)
    assert newest.dice == pytest.approx(shown["dice_after"]["mean"])
    assert (first.kind, first.updates, first.weights_sha256) == ("unknown", 0, digest_weights(operator.model.weights))


def test_looking_writes_nothing(operator):
    list_versions(operator.depot, TYPE, operator.settings)
    assert not (operator.settings.folder / "operator").exists()
    with pytest.raises(SettingsError, match="publish list"):
        show_version(operator.depot, TYPE, "12", operator.settings)


def test_a_rollback_is_a_newer_version_with_the_old_weights(operator):
    merge(operator, 0.002)
    moved = operator.newest()
    new = roll_back(operator.depot, TYPE, operator.first, operator.settings)
    assert int(new) > int(operator.shelf.versions(TYPE)[-2])
    back = operator.newest()
    assert digest_weights(back.weights) == digest_weights(operator.model.weights)
    assert back.timestamp > moved.timestamp
    newest = list_versions(operator.depot, TYPE, operator.settings)[0]
    assert (newest.kind, newest.brings_back) == ("rollback", operator.first)
    assert show_version(operator.depot, TYPE, new, operator.settings)["held"] == []
    with pytest.raises(SettingsError, match="nothing to do"):
        roll_back(operator.depot, TYPE, operator.first, operator.settings)
    assert len(operator.shelf.versions(TYPE)) == 3


def test_what_was_rolled_back_is_not_held_to_be_in_the_model(operator):
    """Else the next update of the same base would be averaged with one that is not there any more."""
    merge(operator, 0.002)
    roll_back(operator.depot, TYPE, operator.first, operator.settings)
    version = merge(operator, 0.004, site="site2")
    assert operator.moved() == pytest.approx(0.004, rel=1e-3)
    assert len(show_version(operator.depot, TYPE, version, operator.settings)["held"]) == 1


def test_a_rollback_takes_no_update_twice(operator):
    content = operator.delta(0.002)
    operator.send(content)
    operator.merge()
    roll_back(operator.depot, TYPE, operator.first, operator.settings)
    again = operator.send(content)
    assert "seen before" in {one.upload: one.reason for one in operator.merge().quarantined}[again]


def test_a_rollback_whose_answer_was_lost_is_found_again(operator):
    merge(operator, 0.002)

    class Lossy:
        def __init__(self, depot):
            self._depot = depot

        def __getattr__(self, name):
            return getattr(self._depot, name)

        def publish(self, model):
            self._depot.publish(model)
            raise StorageError("the power went")

    with pytest.raises(StorageError, match="power"):
        roll_back(Lossy(operator.depot), TYPE, operator.first, operator.settings)
    assert operator.merge().reason == "no update waits"
    newest = list_versions(operator.depot, TYPE, operator.settings)[0]
    assert (newest.kind, newest.brings_back) == ("rollback", operator.first)
    assert len(operator.shelf.versions(TYPE)) == 3


def test_releases_are_signed_with_rising_numbers(operator):
    key = ensure_signing_key(operator.settings.folder)
    write_model(operator.model, operator.root / "again.model")
    first = hand_in(operator.depot, TYPE, operator.model, operator.settings, Statement("To measure.", "CC0"))
    merge(operator, 0.002)
    roll_back(operator.depot, TYPE, first, operator.settings)
    releases = []
    for version in operator.shelf.versions(TYPE)[1:]:
        model = read_model(operator.shelf.model_path(TYPE, version))
        found = read_signature(model)
        assert found.public_key == public_key_text(key)
        releases.append(verified_release(found))
        assert changes_since_signing(releases[-1], model) == ()
    assert [one.number for one in releases] == [1, 2, 3]
    assert [one.rollback_to for one in releases] == [0, 0, 1]
    shown = show_version(operator.depot, TYPE, operator.shelf.versions(TYPE)[-1], operator.settings)
    assert shown["release"] == 3


def test_a_ledger_of_the_first_format_is_read(operator):
    version = merge(operator, 0.002)
    path = operator.settings.folder / "operator" / TYPE / "ledger.json"
    document = json.loads(path.read_text())
    old_keys = ("base_sha256", "public_key", "upload", "content_sha256", "version")
    old = {
        "format": document["format"], "version": 1, "versions": document["versions"], "intent_sha256": "", "intent": {},
        "updates": {name: {key: entry[key] for key in old_keys} for name, entry in document["updates"].items()},
    }  # fmt: skip
    path.write_text(json.dumps(old))
    assert merge(operator, 0.004, site="site2") is not None
    assert operator.moved() == pytest.approx(0.002 + 0.001 * 2**-0.5, rel=1e-3)
    assert (
        version in show_version(operator.depot, TYPE, operator.shelf.versions(TYPE)[-1], operator.settings)["lineage"]
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document["updates"]["x"].update(cases="many"),
        lambda document: document["publications"]["5"].update(kind="magic"),
        lambda document: document["publications"]["5"].update(surprise=1),
        lambda document: document["publications"]["5"].update(dice_after={"a": "b"}),
        lambda document: document["versions"].update(five="a"),
        lambda document: document.update(timestamps=[]),
        lambda document: document.update(version=4),
    ],
)
def test_a_spoilt_ledger_is_told(tmp_path, edit):
    entry = {"base_sha256": "b", "public_key": "k", "upload": "u", "content_sha256": "c", "version": "5"}
    document = {
        "format": "dafne-dante-ledger", "version": 2, "updates": {"x": entry}, "versions": {"5": "d"},
        "publications": {"5": {"kind": "merge", "created": "now"}}, "intent_sha256": "", "intent": {},
    }  # fmt: skip
    store = Store(tmp_path)
    (tmp_path / "ledger.json").write_text(json.dumps(document))
    assert isinstance(store.load(), Ledger)
    edit(document)
    (tmp_path / "ledger.json").write_text(json.dumps(document))
    with pytest.raises(StorageError, match=r"ledger\.json"):
        store.load()


def test_the_commands(operator, command):
    write_settings(replace(operator.settings, folder=operator.root / "configuration"))
    operator.settings = replace(operator.settings, folder=operator.root / "configuration")
    where = ("--folder", operator.root / "server", "--type", TYPE)
    write_model(replace(operator.model, weights={**operator.model.weights, HEAD: torch.zeros(3)}), operator.root / "m")
    code, out, err = command(
        "publish", "--root", operator.root / "server", "--type", TYPE, "--model", operator.root / "m",
        "--intended-use", "Volumes.", "--licence", "CC-BY-4.0", "--json",
    )  # fmt: skip
    assert code == 0, err
    version = json.loads(out)["version"]
    listed = json.loads(command("publish", "list", *where, "--json")[1])["versions"]
    assert [one["kind"] for one in listed] == ["handed in", "unknown"]
    assert version in command("publish", "list", *where)[1]
    assert json.loads(command("publish", "show", version, *where, "--json")[1])["version"] == version
    assert "lineage" in command("publish", "show", version, *where)[1]
    code, out, err = command("publish", "rollback", operator.first, *where, "--json")
    assert (code, json.loads(out)["brings_back"]) == (0, operator.first), err
    assert command("publish", "rollback", "77", *where)[0] == 1
    assert command("publish", "--type", TYPE)[0] == 2
    assert command("publish", "list", "--type", TYPE)[0] == 2
    assert "CC-BY-4.0" in (operator.root / "server" / "models" / TYPE / f"{version}.card.md").read_text().replace(
        "\\", ""
    )


def test_settling_without_an_intent_changes_nothing(operator):
    publisher = Publisher(operator.depot, TYPE, operator.settings, Store(operator.root / "ledger"))
    assert publisher.settle(Ledger(), {"5": "digest"}) == Ledger()
