"""`publish` into a folder in either layout, and to a server that only its own operator can write model.json on."""

import json

import pytest
from fake_php import OPERATOR, SITE, MergingPhp
from fake_servers import FakeServer
from merging import untrained_model
from sites import snapshot

from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.depot import FolderDepot
from dafne_dante.federation.model_signature import read_signature
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.file import parse_model, write_model


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "made.model"
    write_model(untrained_model(), path)
    return path


def answer(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("layout", ["a server's folder", "the folder models itself", "models, with one type in it"])
def test_publish_and_merge_find_a_folder_alike(command, tmp_path, model, layout):
    root = tmp_path / "db"
    if layout == "models, with one type in it":
        Shelf(root).add_type("Leg", {"categories": ["x"]})
    (root / "models").mkdir(parents=True, exist_ok=True)
    named = root if layout == "a server's folder" else root / "models"
    told = answer(command("publish", "--root", named, "--type", "Brain", "--model", model, "--json"))
    assert told["advertised"] is True
    assert (root / "models" / "Brain" / f"{told['version']}.model").is_file()
    assert not (root / "models" / "models").exists()
    for folder in (root, root / "models"):
        listed = answer(command("publish", "list", "--folder", folder, "--type", "Brain", "--json"))
        assert [one["version"] for one in listed["versions"]] == [told["version"]]
        if layout == "models, with one type in it":
            assert FolderDepot(folder, "Leg").versions() == ()
    written = json.loads((root / "models" / "Brain" / "model.json").read_text())
    assert written == told["model_json"]
    assert written["dafne_dante"]["delta"] == 1 and written["dafne_dante"]["operator_key"]


@pytest.mark.parametrize("has_accounts", [False, True])
def test_a_server_of_its_own_may_be_called_models(command, tmp_path, model, has_accounts):
    root = tmp_path / "models"
    if has_accounts:
        Accounts(root)
    for _ in range(2):
        told = answer(command("publish", "--root", root, "--type", "Brain", "--model", model, "--json"))
        assert (root / "models" / "Brain" / f"{told['version']}.model").is_file()
    assert len(FolderDepot(root, "Brain").versions()) == 2
    assert not (tmp_path / "Brain").exists()


@pytest.fixture
def php(monkeypatch):
    monkeypatch.setenv("DAFNE_DANTE_API_KEY", OPERATOR)
    return MergingPhp("Brain", {"1700000000": b"replaced below"}, {"categories": ["left"]}, clock=lambda: 1_800_000_000)


def test_to_a_server_the_block_that_its_model_json_lacks_is_shown(command, tmp_path, model, php):
    php.versions = {"1700000000": model.read_bytes()}
    with FakeServer(php) as server:
        options = ("publish", "--server", server.url, "--type", "Brain", "--model", model)
        told = answer(command(*options, "--json"))
        assert (told["version"], told["advertised"]) == ("1800000000", False)
        key = told["model_json"]["dafne_dante"]["operator_key"]
        assert read_signature(parse_model(php.versions["1800000000"])).public_key == key
        php.clock = lambda: 1_800_000_001
        code, out, err = command(*options)
        assert code == 0, err
        assert "model.json" in out
        assert json.loads(out[out.index("{") :]) == told["model_json"]
        php.description, php.clock = told["model_json"], lambda: 1_800_000_002
        told = answer(command(*options, "--json"))
        assert told["advertised"] is True
        php.clock = lambda: 1_800_000_003
        code, out, err = command(*options)
        assert (code, out.strip()) == (0, "Brain: version 1800000003"), err


def test_the_seal_key_is_in_the_block_and_told_when_the_server_lacks_it(command, tmp_path, model, php):
    php.versions = {"1700000000": model.read_bytes()}
    seal_key = answer(command("keys", "create", "--seal", "--json"))["public_key"]
    with FakeServer(php) as server:
        options = ("publish", "--server", server.url, "--type", "Brain", "--model", model, "--json")
        block = answer(command(*options))["model_json"]["dafne_dante"]
        assert block["seal_key"] == seal_key
        php.description = {"dafne_dante": {name: block[name] for name in ("delta", "operator_key")}}
        php.clock = lambda: 1_800_000_001
        assert answer(command(*options))["advertised"] is False


def test_a_types_first_version_may_come_over_http(command, tmp_path, model, monkeypatch):
    root = tmp_path / "server"
    Shelf(root).add_type("Brain", {})
    monkeypatch.setenv("DAFNE_DANTE_API_KEY", Accounts(root).add_user("operator", merge=["Brain"]))
    with RunningServer(root) as server:
        told = answer(command("publish", "--server", server.url, "--type", "Brain", "--model", model, "--json"))
        code, _, err = command("publish", "--server", server.url, "--type", "Brian", "--model", model)
    assert FolderDepot(root, "Brain").versions() == (told["version"],)
    assert (code, "403" in err) == (1, True), err


def test_a_key_without_the_right_to_merge_publishes_nothing(command, tmp_path, model, php, monkeypatch):
    php.versions = {"1700000000": model.read_bytes()}
    monkeypatch.setenv("DAFNE_DANTE_API_KEY", SITE)
    with FakeServer(php) as server:
        code, out, err = command("publish", "--server", server.url, "--type", "Brain", "--model", model)
    assert (code, out) == (1, "")
    assert "401" in err
    assert list(php.versions) == ["1700000000"]


@pytest.mark.parametrize("both", [False, True])
def test_a_folder_or_a_server_and_not_both(command, tmp_path, model, both):
    where = ("--root", tmp_path / "server", "--server", "http://127.0.0.1:1/") if both else ()
    before = snapshot(tmp_path)
    code, out, _ = command("publish", *where, "--type", "Brain", "--model", model)
    assert (code, out) == (2, "")
    assert snapshot(tmp_path) == before
