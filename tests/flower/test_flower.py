"""Our round on Flower's engine: what goes down and comes up, and that nothing but a signed delta is merged."""

import os
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from test_message_transport import SERVER, Operator

from dafne_dante.config import Settings
from dafne_dante.demo.flower_demo import run_flower_demo
from dafne_dante.errors import SettingsError, TrainingError
from dafne_dante.federation import flower
from dafne_dante.federation.flower import DeltaStrategy, SiteTrust, site_app
from dafne_dante.federation.merge_report import MergeReport
from dafne_dante.federation.shelf import Shelf

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def in_a_run(monkeypatch):
    """The engine sets who runs what before it calls an app."""
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Grid:
    def get_node_ids(self):
        return [3, 4, 5]


@pytest.fixture
def shelf(tmp_path):
    shelf = Shelf(tmp_path / "types")
    shelf.add_type("Leg", {})
    put(shelf, b"the newest model")
    return shelf


def put(shelf, content):
    """The newest version, whatever it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "next.model"
        path.write_bytes(content)
        return shelf.publish_copy("Leg", path)


def trust(tmp_path, **settings):
    return SiteTrust("Leg", SERVER, lambda node: Settings(tmp_path / "site", **settings))


def reply_of(app, message):
    context = type("Context", (), {"node_config": {"partition-id": 0}})()
    return dict(app(message, context).content["delta"])["file"]


@pytest.fixture
def strategy(tmp_path, shelf):
    return DeltaStrategy(tmp_path / "types", "Leg", lambda depot: MergeReport(merged=len(depot.pending())))


def asked(strategy):
    return list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), Grid()))


def answer(message, content):
    # As the engine delivers it: node 0 is where a reply comes from before it is sent.
    return Message(content=content, reply_to=message)


def test_the_published_file_goes_to_every_node_and_nothing_else(strategy, shelf):
    messages = asked(strategy)
    assert [message.metadata.dst_node_id for message in messages] == [3, 4, 5]
    for message in messages:
        assert list(message.content) == ["model"]
        assert dict(message.content["model"]) == {
            "file": b"the newest model", "version": shelf.versions("Leg")[-1]
        }  # fmt: skip


def test_only_files_are_received_and_silence_is_counted(strategy, shelf):
    messages = asked(strategy)
    replies = [
        answer(messages[0], RecordDict({"delta": ConfigRecord({"file": b"a signed file"})})),
        answer(messages[1], RecordDict({"delta": ConfigRecord({"file": b""})})),
        answer(messages[2], RecordDict({"delta": ConfigRecord({"file": 3.0})})),
        answer(messages[2], RecordDict({"other": ConfigRecord({"file": b"?"})})),
    ]
    arrays, metrics = strategy.aggregate_train(1, replies)
    assert arrays is None
    assert dict(metrics) == {"received": 1, "without update": 3, "merged": 1, "refused": 0}
    ((upload,)) = shelf.uploads("Leg")
    assert shelf.upload_path("Leg", upload.filename).read_bytes() == b"a signed file"
    assert list(strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), Grid())) == []


@pytest.mark.parametrize("name", flower.QUIET)
def test_nothing_is_built_while_the_engine_would_tell_of_itself(strategy, tmp_path, monkeypatch, name):
    monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match=name):
        site_app(lambda model, out, node: None, trust(tmp_path))
    with pytest.raises(SettingsError, match=name):
        DeltaStrategy(tmp_path / "types", "Leg", lambda depot: MergeReport())


def test_nothing_is_built_in_an_engine_that_installs_what_an_app_asks_for(strategy, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["flwr-clientapp", "--allow-runtime-dependency-installation"])
    with pytest.raises(SettingsError, match="installs nothing"):
        site_app(lambda model, out, node: None, trust(tmp_path))
    with pytest.raises(SettingsError, match="installs nothing"):
        DeltaStrategy(tmp_path / "types", "Leg", lambda depot: MergeReport())


def test_a_site_s_fault_is_its_own(strategy, shelf, tmp_path, caplog):
    def fails(model, out, node):
        raise TrainingError("expected something, found nothing")

    put(shelf, Operator(tmp_path / "operator").release(1))
    assert reply_of(site_app(fails, trust(tmp_path)), asked(strategy)[0]) == b""
    assert "expected something" in caplog.text


HOSTILE = {
    "swapped": lambda operator, other: other.release(3),
    "rolled back": lambda operator, other: operator.release(1),
    "unsigned": lambda operator, other: operator.release(3, signed=False),
    "no model": lambda operator, other: b"cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_engine_gets_no_site_to_improve_another_model(strategy, shelf, tmp_path, caplog, hostile):
    operator, seen = Operator(tmp_path / "operator"), []

    def improves(model, out, node):
        seen.append(model.read_bytes())
        (out / "update.delta").write_bytes(b"a delta")
        return out / "update.delta"

    app = site_app(improves, trust(tmp_path, operator_key=operator.public_key))
    honest = operator.release(2)
    put(shelf, honest)
    assert reply_of(app, asked(strategy)[0]) == b"a delta"
    put(shelf, HOSTILE[hostile](operator, Operator(tmp_path / "other")))
    assert reply_of(app, asked(strategy)[0]) == b""
    assert seen == [honest]
    assert "no update: " in caplog.text
    put(shelf, operator.release(3))
    assert reply_of(app, asked(strategy)[0]) == b"a delta"


def test_a_federation_that_signs_nothing_works_and_says_so_every_round(strategy, shelf, tmp_path, caplog):
    put(shelf, Operator(tmp_path / "operator").release(0, signed=False))
    app = site_app(lambda model, out, node: None, trust(tmp_path))
    for rounds in (1, 2):
        assert reply_of(app, asked(strategy)[0]) == b""
        assert caplog.text.count("this federation is unsigned") == rounds


def test_a_message_that_holds_something_else_costs_the_update_only(strategy, tmp_path):
    app = site_app(lambda model, out, node: pytest.fail("nothing to improve"), trust(tmp_path))
    message = asked(strategy)[0]
    for record in (ConfigRecord({"file": 3.0, "version": "1"}), ConfigRecord({})):
        message.content["model"] = record
        assert reply_of(app, message) == b""


@pytest.mark.timeout(1200)
def test_ten_sites_improve_and_two_forgers_do_not_get_in(tmp_path):
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    report = run_flower_demo(tmp_path / "demo", 10)
    reasons = " / ".join(refusal.reason for refusal in report.quarantined)
    assert "that were signed, found others" in reasons
    assert report.merged >= 2 and report.version is not None
    assert all(report.dice_after[name] >= dice - 0.015 - 1e-9 for name, dice in report.dice_before.items())
