"""The outbox: nothing is lost, nothing leaves twice as two updates, and every wait has a reason and an end."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from outboxes import START_S, FakeClient, Place, delta

from dafne_dante.errors import (
    AccessDeniedError,
    DeltaError,
    DeltaReplayError,
    DeltaSignatureError,
    ServerAnswerError,
    ServerUnreachableError,
    SettingsError,
    StorageError,
    TransportError,
    UploadUnknownError,
)
from dafne_dante.federation.outbox import Limits
from dafne_dante.federation.outbox_states import Patience
from dafne_dante.federation.sending import cancel_update

OFFLINE = ServerUnreachableError("no answer")
DENIED = AccessDeniedError("the API key lacks the permission for this model type (403); ask the operator")
DAY_S = 86_400.0


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "outbox")


def test_what_is_queued_leaves_as_it_is_and_its_file_goes(place):
    entry = place.queue()
    assert place.files() == [entry.sha256]
    [tried] = place.dispatcher(client := FakeClient()).send_due()
    assert (tried.entry.state, tried.error) == ("sent", None)
    assert client.taken == [delta()]
    assert client.calls == [("info", "Leg"), ("upload", "Leg", 0.75)]
    assert place.files() == []
    assert place.dispatcher(client).send_due() == []
    assert place.dispatcher(client).send_one(entry.update_id).entry.state == "sent"
    assert len(client.taken) == 1


def test_others_cannot_read_it(place):
    place.queue()
    place.dispatcher(FakeClient(sent=[OFFLINE])).send_due()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place.folder, *place.folder.rglob("*"))}
    folders = {name: mode for name, mode in modes.items() if name in ("outbox", "files")}
    assert set(folders.values()) == {0o700}
    assert {mode for name, mode in modes.items() if name not in folders} == {0o600}


def test_weeks_without_a_server_lose_nothing_and_then_everything_goes_in_order(place):
    contents = [delta(number) for number in range(1, 6)]
    for content in contents:
        place.queue(content)
    for _ in range(40):
        place.clock.now_s += DAY_S
        [tried] = place.dispatcher(FakeClient(asked=[OFFLINE])).send_due()
        assert (tried.entry.state, tried.entry.why, tried.entry.attempts) == ("waiting", "offline", 0)
    place.clock.now_s += DAY_S
    place.dispatcher(client := FakeClient()).send_due()
    assert client.taken == contents
    assert place.files() == []


def test_pauses_grow_are_kept_and_hold(place):
    place.queue()
    pauses = []
    for _ in range(12):
        [tried] = place.dispatcher(FakeClient(asked=[OFFLINE])).send_due()
        pauses.append(tried.entry.next_try_s - place.clock.now_s)
        place.clock.now_s = tried.entry.next_try_s - 1
        assert place.dispatcher(client := FakeClient()).send_due() == []
        assert client.calls == []
        place.clock.now_s += 1
    assert pauses == [min(30.0 * 2**number, 3 * 3600.0) for number in range(12)]
    assert Patience().pause_s(3, 0.999) == pytest.approx(240, rel=1e-2)
    assert Patience().pause_s(1, 0.0, asked_s=500) == 500
    assert Patience().pause_s(10**6, 0.0, asked_s=1e9) == 6 * 3600


@pytest.mark.parametrize("back_s", [60.0, 30 * DAY_S, START_S])
def test_a_clock_that_is_set_back_stops_nothing(place, back_s):
    place.queue()
    for _ in range(8):
        place.dispatcher(FakeClient(asked=[OFFLINE])).send_due()
        place.clock.now_s += 7 * 3600
    place.clock.now_s -= 7 * 3600 + back_s
    [tried] = place.dispatcher(FakeClient()).send_due()
    assert tried.entry.state == "sent"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (DENIED, "permission"),
        (AccessDeniedError("the server does not accept the API key (401); check the key"), "permission"),
        (ServerAnswerError("the server answered 400: a malformed name", status=400), "address"),
        (ServerAnswerError("the server sends elsewhere", status=307), "address"),
        (ServerAnswerError("too large", status=413), "too-large"),
    ],
)
@pytest.mark.parametrize("where", ["asked", "sent"])
def test_what_only_a_person_can_change_is_held_until_somebody_does(place, error, why, where):
    place.queue()
    [tried] = place.dispatcher(FakeClient(**{where: [error]}, keeps=False)).send_due()
    assert (tried.entry.state, tried.entry.why, tried.entry.next_try_s) == ("waiting", why, None)
    assert tried.entry.told == str(error)
    place.clock.now_s += 365 * DAY_S
    assert place.dispatcher(FakeClient()).send_due() == []
    other = place.dispatcher(FakeClient(asked=[error]), mark="b").send_due()  # other settings, one more try
    assert [one.entry.state for one in other] == ["waiting"]
    assert place.dispatcher(FakeClient(), mark="b").send_due() == []
    place.outbox.retry(tried.entry.update_id)
    assert place.dispatcher(FakeClient(), mark="b").send_due()[0].entry.state == "sent"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OFFLINE, "offline"),
        (ServerUnreachableError("busy", may_have_arrived=False, retry_after_s=900), "offline"),
        (ServerAnswerError("nonsense"), "server"),
        (ServerAnswerError("the server answered 500", status=500), "server"),
        (ServerAnswerError("no such type", status=404), "no-type"),
        (UploadUnknownError("the server may have taken the file, or not"), "unknown"),
        (StorageError("disk"), "storage"),
    ],
)
def test_what_may_pass_is_tried_again(place, error, why):
    place.queue()
    [tried] = place.dispatcher(FakeClient(sent=[error], keeps=False)).send_due()
    assert (tried.entry.state, tried.entry.why, tried.error) == ("waiting", why, error)
    assert tried.entry.next_try_s == START_S + (900 if "busy" in str(error) else 30)
    place.clock.now_s += 900
    assert place.dispatcher(FakeClient()).send_due()[0].entry.state == "sent"


def test_what_the_server_will_never_take_is_refused_until_a_retry(place):
    entry = place.queue()
    [tried] = place.dispatcher(FakeClient(sent=[ServerAnswerError("no", status=422)], keeps=False)).send_due()
    assert tried.entry.state == "refused"
    assert place.files() == [entry.sha256]
    place.clock.now_s += 365 * DAY_S
    assert place.dispatcher(FakeClient(), mark="b").send_due() == []
    place.outbox.retry(entry.update_id)
    assert place.dispatcher(FakeClient()).send_one(entry.update_id).entry.state == "sent"


def test_a_type_that_takes_no_deltas_gets_none_until_it_says_so(place):
    place.queue()
    [tried] = place.dispatcher(client := FakeClient(takes_deltas=False)).send_due()
    assert (tried.entry.state, tried.entry.why) == ("waiting", "no-deltas")
    assert "Leg does not say so" in str(tried.error)
    assert client.taken == []
    place.clock.now_s += 60
    assert place.dispatcher(client := FakeClient()).send_due()[0].entry.state == "sent"
    assert client.taken == [delta()]


def test_a_lost_answer_sends_the_same_bytes_again_and_the_log_says_so(place):
    place.queue()
    client = FakeClient(sent=[UploadUnknownError("lost"), ServerAnswerError("500", status=500), None])
    for _ in range(3):
        place.dispatcher(client).send_due()
        place.clock.now_s += DAY_S
    assert client.taken == [delta()] * 3  # one update_id: the operator counts it once
    assert (place.only().state, place.only().attempts, place.only().doubtful) == ("sent", 3, 2)
    leaving = [record for record in place.outbox.audit.records() if record["event"] == "leaving"]
    assert [(record["attempt"], record["may_be_there"]) for record in leaving] == [(1, False), (2, True), (3, True)]
    assert [outcome for event, outcome in place.events() if event == "outcome"] == ["unknown", "unknown", "arrived"]


def test_a_server_that_keeps_everything_and_answers_nothing_is_not_filled(place):
    place.queue()
    client = FakeClient(sent=[UploadUnknownError("lost")] * 100)
    for _ in range(50):
        place.dispatcher(client).send_due()
        place.clock.now_s += DAY_S
    assert len(client.taken) == 5
    assert (place.only().state, place.only().why, place.only().next_try_s) == ("waiting", "unknown", None)


def test_no_server_ends_the_round_and_one_bad_update_does_not(place):
    for number in (1, 2, 3):
        place.queue(delta(number))
    client = FakeClient(asked=[None, OFFLINE], sent=[ServerAnswerError("no", status=422)], keeps=False)
    assert [one.entry.state for one in place.dispatcher(client).send_due()] == ["refused", "waiting"]
    assert [call[0] for call in client.calls] == ["info", "upload", "info"]


def test_an_update_goes_to_the_server_that_it_was_queued_for_and_to_no_other(place):
    entry = place.queue(server="https://old.example")
    client = FakeClient()
    assert place.dispatcher(client).send_due() == []
    assert "https://old.example/" in str(place.dispatcher(client).send_one(entry.update_id).error)
    assert client.calls == []
    assert place.dispatcher(client, server="https://old.example").send_due()[0].entry.state == "sent"


def test_an_update_id_is_never_another_update(place):
    entry = place.queue()
    assert place.queue() == entry
    with pytest.raises(DeltaReplayError):
        place.queue(delta(cases=8))
    with pytest.raises(DeltaReplayError):
        place.queue(server="https://other.example")
    place.dispatcher(FakeClient()).send_due()
    assert place.queue().state == "sent"
    with pytest.raises(DeltaReplayError):
        place.queue(delta(cases=8))
    assert place.files() == []


def test_what_is_cancelled_never_leaves(place):
    entry = place.queue()
    assert cancel_update(place.outbox, entry.update_id[:8]).state == "cancelled"
    assert place.files() == []
    assert place.events() == [("cancelled", None)]
    with pytest.raises(DeltaReplayError, match="cancelled"):
        place.queue()
    with pytest.raises(DeltaError, match="cancelled"):
        place.outbox.retry(entry.update_id)
    assert place.dispatcher(client := FakeClient()).send_due() == []
    assert place.dispatcher(client).send_one(entry.update_id).error is not None
    assert client.taken == []


def test_what_left_cannot_be_cancelled(place):
    entry = place.queue()
    place.dispatcher(FakeClient()).send_due()
    with pytest.raises(DeltaError, match="it has left"):
        cancel_update(place.outbox, entry.update_id)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", DeltaError), (b"\0" * 999, DeltaError), (delta()[:-1], DeltaError), (delta(model_type=""), DeltaError),
     (delta().replace(b'\\"cases\\":7', b'\\"cases\\":9'), DeltaSignatureError)],
)  # fmt: skip
def test_only_a_signed_delta_with_a_type_is_queued(place, content, error):
    with pytest.raises(error):
        place.queue(content)
    assert place.outbox.entries() == []
    assert place.files() == []


@pytest.mark.parametrize("server", ["", "http://hospital.example", "https://user:word@host/", "ftp://x/"])
def test_only_for_a_server_that_can_be_sent_to(place, server):
    with pytest.raises(SettingsError):
        place.queue(server=server)


@pytest.mark.parametrize("limits", [Limits(updates=2), Limits(size_bytes=2 * len(delta()) + 10)])
def test_a_full_outbox_says_so_and_keeps_what_it_has(tmp_path, limits):
    place = Place(tmp_path, limits=limits)
    place.queue(delta(1))
    place.queue(delta(2))
    with pytest.raises(StorageError, match="room in the outbox"):
        place.queue(delta(3))
    assert place.queue(delta(2)).state == "waiting"
    place.dispatcher(FakeClient()).send_due()
    assert place.queue(delta(3)).state == "waiting"


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * len(delta()))])
def test_a_file_that_is_not_what_was_queued_does_not_leave(place, spoil):
    entry = place.queue()
    spoil(place.folder / "files" / entry.sha256)
    [tried] = place.dispatcher(client := FakeClient()).send_due()
    assert (tried.entry.state, tried.entry.why, client.taken) == ("refused", "damaged", [])


def test_of_two_senders_one_sends(place):
    place.queue()
    inside, go_on = threading.Event(), threading.Event()

    class Slow(FakeClient):
        def upload(self, *arguments):
            inside.set()
            assert go_on.wait(30)
            super().upload(*arguments)

    slow, other = Slow(), FakeClient()
    thread = threading.Thread(target=place.dispatcher(slow).send_due)
    thread.start()
    assert inside.wait(30)
    try:
        assert place.dispatcher(other).send_due() == []
        with pytest.raises(TransportError, match="another process"):
            place.dispatcher(other).send_one(place.only().update_id)
        with pytest.raises(DeltaError, match="sending"):
            cancel_update(place.outbox, place.only().update_id)
        place.queue(delta(2))  # nobody who queues waits for a slow network
    finally:
        go_on.set()
        thread.join()
    assert (slow.taken, other.taken) == ([delta()], [])


def test_a_process_that_dies_while_sending_holds_nothing_up(place):
    """Killed inside the upload by the operating system; another process goes on."""
    entry = place.queue()
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom outboxes import *\n"
        "class Dies(FakeClient):\n    def upload(self, *words):\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Place(Path(sys.argv[1])).dispatcher(Dies()).send_due()\n"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", program, str(place.folder)], env={**os.environ, "PYTHONPATH": here})
    assert done.returncode == -9
    assert place.only().state == "sending"
    tried = place.dispatcher(FakeClient()).send_one(entry.update_id)
    assert (tried.entry.state, tried.entry.attempts, tried.entry.doubtful) == ("sent", 2, 1)
    assert place.events() == [
        ("leaving", None), ("outcome", "unknown"), ("leaving", None), ("outcome", "arrived")
    ]  # fmt: skip
    assert place.outbox.audit.verify(place.outbox.audit_head()).fault == ""


def test_without_an_audit_log_nothing_leaves(place):
    place.queue()
    (place.folder / "audit.jsonl").mkdir()
    client = FakeClient()
    with pytest.raises(StorageError, match=r"audit\.jsonl"):
        place.dispatcher(client).send_due()
    assert client.taken == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "outbox.sqlite").write_bytes(b"no database at all" * 100),
        lambda folder: alter(folder, "PRAGMA user_version = 9"),
        lambda folder: alter(folder, "UPDATE updates SET size_bytes = 'many'"),
        lambda folder: alter(folder, "PRAGMA ignore_check_constraints = 1", "UPDATE updates SET state = 'lost'"),
        lambda folder: alter(folder, "DROP TABLE updates"),
    ],
)
def test_a_damaged_database_is_told(place, spoil):
    place.queue()
    spoil(place.folder)
    with pytest.raises(StorageError, match=r"outbox(\.sqlite)?"):
        place.outbox.entries()


def alter(folder, *statements):
    with sqlite3.connect(folder / "outbox.sqlite") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
