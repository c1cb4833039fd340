"""A site without a network, its operator, and a stick between them, by command line."""

import json
from functools import partial

import pytest
from deltas import OTHER_KEY
from fake_dafne import FakePhp
from fake_servers import FakeServer
from outboxes import delta
from test_running import free_port
from test_trusted import other_weights, signed

from dafne_dante.config import Settings, load_settings, write_settings
from dafne_dante.delta.signing import create_signing_key, ensure_signing_key, public_key_text, trust_key
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.outbox import open_outbox
from dafne_dante.federation.outbox_states import wait
from dafne_dante.federation.parcel import open_parcel
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.file import read_model, write_model

SERVER = "https://federation.example/dafne/"
TYPE = "Brain (3D)"


class Stick:
    """A folder that both carry about, a site and an operator with settings of their own."""

    def __init__(self, root, command, monkeypatch):
        self.root, self.command, self.monkeypatch = root, command, monkeypatch
        self.shelf = Shelf(root / "server")
        for name in ("site", "operator"):
            write_settings(Settings(folder=root / name, server=SERVER, api_key="unused", retries=0))
            create_signing_key(root / name)
        self.shelf.add_type(TYPE, {"categories": ["a"], "dafne_dante": {"delta": 1}})
        self.publish(1)

    def key(self, who):
        return ensure_signing_key(self.root / who)

    def publish(self, number, **changes):
        write_model(signed(number, key=self.key("operator"), **changes), self.root / "m.model")
        return self.shelf.publish_copy(TYPE, self.root / "m.model")

    def run(self, who, *words):
        self.monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(self.root / who))
        code, out, err = self.command("bundle", *words, "--json")
        return code, json.loads(out) if out else None, err

    def export_model(self, name="model.bundle"):
        return self.run(
            "operator", "export", "--global", TYPE, "--folder", self.root / "server", "--to", self.root / name
        )

    def import_model(self, name="model.bundle"):
        return self.run("site", "import", self.root / name, "--out", self.root / "got.model")

    def outbox(self):
        return open_outbox(load_settings(self.root / "site"))


@pytest.fixture
def stick(tmp_path, command, monkeypatch):
    return Stick(tmp_path, command, monkeypatch)


def pin(stick):
    operator = public_key_text(stick.key("operator"))
    write_settings(Settings(folder=stick.root / "site", server=SERVER, api_key="unused", operator_key=operator))


def test_a_model_comes_by_stick_under_the_checks_of_the_network(stick):
    assert stick.export_model()[0] == 0
    code, _, err = stick.import_model()
    assert (code, err.count("keys trust")) == (1, 1)  # nobody knows who packed it
    assert not (stick.root / "got.model").exists()
    pin(stick)
    code, answer, err = stick.import_model()
    assert (code, answer["type"]) == (0, TYPE)
    assert "release 1" in answer["trust"]
    assert read_model(stick.root / "got.model").model_id == read_model(stick.root / "m.model").model_id
    assert stick.import_model()[0] == 0  # once more does no harm
    stick.publish(2, model=other_weights(signed(2)))
    assert stick.export_model("newer.bundle")[0] == 0
    assert "release 2" in stick.import_model("newer.bundle")[1]["trust"]
    before = (stick.root / "got.model").read_bytes()
    code, _, err = stick.import_model()  # an old stick does not bring the old model back
    assert (code, "replaced" in err) == (1, True)
    assert (stick.root / "got.model").read_bytes() == before
    assert not [path.name for path in stick.root.iterdir() if path.name.startswith(".got")]


def test_updates_go_by_stick_and_a_receipt_comes_back(stick):
    pin(stick)
    stick.outbox().queue(delta(1, model_type=TYPE), server=SERVER, dice=0.75, trigger="nightly")
    bundle, receipt = stick.root / "updates.bundle", stick.root / "receipt"
    assert stick.run("site", "export", "--outbox", "--to", bundle)[0] == 0
    words = ("import", bundle, "--folder", stick.root / "server", "--receipt", receipt)
    code, _, err = stick.run("operator", *words)
    assert (code, err.count("keys trust")) == (1, 1)
    assert stick.shelf.uploads(TYPE) == []
    trust_key(stick.root / "operator", public_key_text(stick.key("site")), "Hospital B")
    assert stick.run("operator", *words)[1]["updates"] == 1
    assert stick.run("operator", *words)[1]["taken"] == []
    [upload] = stick.shelf.uploads(TYPE)
    assert upload.username == "Hospital-B"
    assert stick.shelf.upload_path(TYPE, upload.filename).read_bytes() == delta(1, model_type=TYPE)
    assert [entry.state for entry in stick.outbox().entries()] == ["waiting"]
    assert len(stick.run("site", "import", receipt)[1]["sent"]) == 1
    assert [entry.state for entry in stick.outbox().entries()] == ["sent"]
    assert [record["event"] for record in stick.outbox().audit.records()] == ["packed", "receipt"]


def test_an_operator_s_machine_brings_them_from_the_stick_to_a_server_over_http(stick):
    """Lost on the way, the same import goes on; what the server has is not sent a second time."""
    pin(stick)
    trust_key(stick.root / "operator", public_key_text(stick.key("site")), "Hospital B")
    for number in (1, 2):
        stick.outbox().queue(delta(number, model_type=TYPE), server=SERVER, dice=0.75, trigger="nightly")
    bundle, receipt = stick.root / "updates.bundle", stick.root / "receipt"
    assert stick.run("site", "export", "--outbox", "--to", bundle)[0] == 0
    key = Accounts(stick.root / "server").add_user("carrier", access=[TYPE])
    write_settings(Settings(folder=stick.root / "operator", server=SERVER, api_key=key, retries=0, timeout_s=20.0))
    code, _, err = stick.run("operator", "import", bundle, "--server", f"http://127.0.0.1:{free_port()}/")
    assert code == 1 and "no answer" in err
    with RunningServer(stick.root / "server") as server:
        words = ("import", bundle, "--server", server.url, "--receipt", receipt)
        assert len(stick.run("operator", *words)[1]["taken"]) == 2
        assert stick.run("operator", *words)[1]["taken"] == []
    uploads = stick.shelf.uploads(TYPE)
    contents = {stick.shelf.upload_path(TYPE, upload.filename).read_bytes() for upload in uploads}
    assert contents == {delta(number, model_type=TYPE) for number in (1, 2)} and len(uploads) == 2
    assert {upload.username for upload in uploads} == {"carrier"}
    assert len(stick.run("site", "import", receipt)[1]["sent"]) == 2


def updates_bundle(stick, number=1):
    pin(stick)
    trust_key(stick.root / "operator", public_key_text(stick.key("site")), "Hospital B")
    stick.outbox().queue(delta(number, model_type=TYPE), server=SERVER, dice=0.75, trigger="nightly")
    assert stick.run("site", "export", "--outbox", "--to", stick.root / "updates.bundle")[0] == 0
    return stick.root / "updates.bundle"


@pytest.mark.parametrize("damaged", [False, True], ids=["as it is", "with an empty folder `models` in it"])
def test_the_models_folder_of_the_fastapi_server_is_used_and_stays_as_it_is(stick, damaged):
    """Given as --folder db/models; another release had left an empty folder in it."""
    bundle = updates_bundle(stick)
    (stick.root / "server").rename(stick.root / "db")
    models = stick.root / "db" / "models"
    if damaged:
        (models / "models").mkdir()
    before = sorted(path.relative_to(models) for path in models.rglob("*"))
    words = ("export", "--global", TYPE, "--folder", models, "--to", stick.root / "model.bundle")
    code, _, err = stick.run("operator", *words)
    assert code == 0, err
    assert sorted(path.relative_to(models) for path in models.rglob("*")) == before
    assert stick.import_model()[0] == 0
    assert stick.run("operator", "import", bundle, "--folder", models)[0] == 0
    [upload] = list((models / TYPE / "uploads").iterdir())
    assert upload.read_bytes() == delta(1, model_type=TYPE)


def test_a_folder_that_is_no_server_s_is_refused_and_stays_empty(stick):
    bundle, empty = updates_bundle(stick), stick.root / "empty"
    empty.mkdir()
    for words in (("export", "--global", TYPE, "--to", stick.root / "m"), ("import", bundle)):
        code, _, err = stick.run("operator", *words, "--folder", empty)
        assert (code, "check --folder" in err) == (1, True)
    assert list(empty.iterdir()) == []


def test_a_type_that_takes_no_deltas_gets_none_by_stick_either(stick):
    """A delta in the queue of a stock merger would stay first for ever."""
    bundle = updates_bundle(stick)
    stick.shelf.add_type(TYPE, {"categories": ["a"]})
    code, _, err = stick.run("operator", "import", bundle, "--folder", stick.root / "server")
    assert (code, "does not say so" in err) == (1, True)
    assert stick.shelf.uploads(TYPE) == []
    stock = FakePhp()
    with FakeServer(stock) as server:
        write_settings(Settings(folder=stick.root / "operator", server=SERVER, api_key="k", retries=0))
        words = ("import", bundle, "--server", server.url)
        code, _, err = stick.run("operator", *words)
        assert (code, "does not say so" in err, stock.kept) == (1, True, {})
        stock.info["dafne_dante"] = {"delta": 1}
        assert stick.run("operator", *words)[0] == 0
    assert list(stock.kept.values()) == [delta(1, model_type=TYPE)]


def test_what_waits_for_a_type_that_takes_no_deltas_is_not_packed(stick):
    updates_bundle(stick)
    outbox, [first] = stick.outbox(), stick.outbox().entries()
    outbox.change(first.update_id, partial(wait, why="no-deltas", pause_s=60.0, doubtful=False))
    code, _, err = stick.run("site", "export", "--outbox", "--to", stick.root / "b")
    assert (code, "outbox retry" in err) == (1, True)
    second = outbox.queue(delta(2, model_type=TYPE), server=SERVER, dice=0.75, trigger="nightly")
    assert stick.run("site", "export", "--outbox", "--to", stick.root / "b")[0] == 0
    assert [item.name for item in open_parcel(stick.root / "b").content.items] == [second.update_id]


def test_a_receipt_by_a_stranger_closes_nothing(stick):
    from dafne_dante.federation.parcel_trade import write_receipt

    stick.outbox().queue(delta(1, model_type=TYPE), server=SERVER, dice=0.75, trigger="nightly")
    stick.run("site", "export", "--outbox", "--to", stick.root / "b")
    write_receipt(open_parcel(stick.root / "b"), stick.root / "r", OTHER_KEY)
    assert stick.run("site", "import", stick.root / "r")[0] == 1
    assert [entry.state for entry in stick.outbox().entries()] == ["waiting"]


def test_a_person_says_that_it_was_handed_over(stick):
    stick.outbox().queue(delta(1, model_type=TYPE), server=SERVER, dice=0.75, trigger="nightly")
    stick.run("site", "export", "--outbox", "--to", stick.root / "b")
    assert stick.run("operator", "close", stick.root / "b")[0] == 1  # only who packed it can
    assert len(stick.run("site", "close", stick.root / "b")[1]["sent"]) == 1
    assert [record["event"] for record in stick.outbox().audit.records()] == ["packed", "handed-over"]


def test_what_a_bundle_carries_is_shown(stick):
    stick.export_model()
    code, answer, err = stick.run("site", "show", stick.root / "model.bundle")
    assert (code, answer["kind"], answer["server"], len(answer["items"])) == (0, "model", SERVER, 1)
    assert "packed by" in err


@pytest.mark.parametrize(
    "words",
    [
        ("export", "--to", "x"),
        ("export", "--to", "x", "--outbox", "--global", TYPE),
    ],
)
def test_usage_errors_are_2(stick, words):
    assert stick.run("site", *words)[0] == 2


def test_a_file_that_is_no_bundle_is_one_line(stick):
    (stick.root / "x").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    for words in (("import", stick.root / "x", "--out", stick.root / "y"), ("show", stick.root / "x")):
        code, _, err = stick.run("site", *words)
        assert (code, err.count("\n")) == (1, 1)


def test_an_improvement_from_a_bundle_queues_its_update_for_the_stick(trained, tmp_path, command, monkeypatch):
    shelf = Shelf(tmp_path / "server")
    shelf.add_type("Brain", {"dafne_dante": {"delta": 1}})
    shelf.publish_copy("Brain", trained / "base.model")
    stick = tmp_path / "model.bundle"
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(tmp_path / "operator"))
    words = ("export", "--global", "Brain", "--folder", tmp_path / "server", "--server", SERVER, "--to", stick)
    assert command("bundle", *words)[0] == 0
    site = tmp_path / "site"
    trust_key(site, public_key_text(ensure_signing_key(tmp_path / "operator")), "operator")
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(site))
    code, out, err = command(
        "improve", "--data", trained / "new", "--out", tmp_path / "out", "--bundle", stick, "--type", "Brain",
        "--epochs", "3", "--upload", "--json",
    )  # fmt: skip
    assert (code, json.loads(out)["gate"]) == (0, "passed"), err
    [entry] = open_outbox(load_settings(site)).entries()
    assert (entry.server, entry.model_type, entry.state, entry.why) == (SERVER, "Brain", "waiting", "new")
    assert command("bundle", "export", "--outbox", "--server", SERVER, "--to", tmp_path / "back.bundle")[0] == 0
