"""Our round on Flower's engine: what goes down and comes up, and that nothing but a signed delta is merged."""

import os

import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from dafne_dante.demo.flower_demo import run_flower_demo
from dafne_dante.errors import SettingsError, TrainingError
from dafne_dante.federation import flower
from dafne_dante.federation.flower import DeltaStrategy, site_app
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
    (tmp_path / "first.model").write_bytes(b"the newest model")
    shelf.publish_copy("Leg", tmp_path / "first.model")
    return shelf


@pytest.fixture
def strategy(tmp_path, shelf):
    return DeltaStrategy(tmp_path / "types", "Leg", lambda depot: MergeReport(merged=len(depot.pending())))


def asked(strategy):
    return list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), Grid()))


def answer(message, content):
    # As the engine delivers it: node 0 is where a reply comes from before it is sent.
    return Message(content=content, reply_to=message)


def test_the_published_file_goes_to_every_node_and_nothing_else(strategy):
    messages = asked(strategy)
    assert [message.metadata.dst_node_id for message in messages] == [3, 4, 5]
    for message in messages:
        assert list(message.content) == ["model"]
        assert dict(message.content["model"]) == {"file": b"the newest model"}


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
        site_app(lambda model, out, node: None)
    with pytest.raises(SettingsError, match=name):
        DeltaStrategy(tmp_path / "types", "Leg", lambda depot: MergeReport())


def test_a_site_s_fault_is_its_own(strategy, caplog):
    def fails(model, out, node):
        raise TrainingError("expected something, found nothing")

    app = site_app(fails)
    message = asked(strategy)[0]
    context = type("Context", (), {"node_config": {"partition-id": 0}})()
    reply = app(message, context)
    assert dict(reply.content["delta"]) == {"file": b""}
    assert "expected something" in caplog.text


@pytest.mark.timeout(600)
def test_ten_sites_improve_and_two_forgers_do_not_get_in(tmp_path):
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    report = run_flower_demo(tmp_path / "demo", 10)
    reasons = " / ".join(refusal.reason for refusal in report.quarantined)
    assert "that were signed, found others" in reasons
    assert report.merged >= 2 and report.version is not None
    assert all(report.dice_after[name] >= dice - 0.015 - 1e-9 for name, dice in report.dice_before.items())
