"""The outbox in a bundle, and the receipt that comes back: nothing is lost, nothing counts twice."""

import pytest
from deltas import KEY, OTHER_KEY
from outboxes import SERVER, Place, delta

from dafne_dante.config import Settings
from dafne_dante.delta.sealing import create_seal_key, is_sealed, load_seal_key, open_sealed
from dafne_dante.delta.signing import public_key_text, trust_key
from dafne_dante.errors import DeltaError, ServerAnswerError, StorageError, TrustError
from dafne_dante.federation.parcel import new_content, open_parcel, write_parcel
from dafne_dante.federation.parcel_trade import (
    close_updates,
    pack_outbox,
    packers,
    receive_updates,
    sender_name,
    write_receipt,
)


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "outbox")
    made.queue(delta(1))
    made.queue(delta(2))
    return made


class Operator:
    """Takes bundles; `files` are what reached the queue."""

    def __init__(self, root):
        self.root, self.files = root, []
        root.mkdir()

    def take(self, path, deliver=None):
        def keep(item, file):
            self.files.append((item.name, file.read_bytes()))

        return receive_updates(open_parcel(path), self.root / "marks", self.root, deliver or keep)


def states(place):
    return [entry.state for entry in place.outbox.entries()]


def test_updates_wait_until_their_receipt_is_back(place, tmp_path):
    operator = Operator(tmp_path / "operator")
    pack_outbox(place.outbox, SERVER, tmp_path / "b", KEY)
    assert states(place) == ["waiting", "waiting"]
    assert [event for event, _ in place.events()] == ["packed", "packed"]
    new, every = operator.take(tmp_path / "b")
    assert len(new) == len(every) == 2
    assert [content for _, content in operator.files] == [delta(1), delta(2)]
    write_receipt(open_parcel(tmp_path / "b"), tmp_path / "r", OTHER_KEY)
    receipt = open_parcel(tmp_path / "r").content
    assert receipt.answers == open_parcel(tmp_path / "b").content.parcel_id
    assert len(close_updates(place.outbox, receipt, event="receipt")) == 2
    assert states(place) == ["sent", "sent"]
    assert place.files() == []
    assert [event for event, _ in place.events()] == ["packed", "packed", "receipt", "receipt"]
    assert place.outbox.audit.verify(place.outbox.audit_head()).fault == ""
    assert close_updates(place.outbox, receipt, event="receipt") == []
    with pytest.raises(DeltaError, match="waits for that server"):
        pack_outbox(place.outbox, SERVER, tmp_path / "c", KEY)


def test_taking_a_bundle_twice_or_two_with_the_same_updates_queues_each_once(place, tmp_path):
    operator = Operator(tmp_path / "operator")
    for name in ("b", "c"):
        pack_outbox(place.outbox, SERVER, tmp_path / name, KEY)
    assert [len(operator.take(tmp_path / name)[0]) for name in ("b", "b", "c")] == [2, 0, 0]
    assert len(operator.files) == 2


def test_a_delivery_that_fails_is_made_up_for(place, tmp_path):
    operator = Operator(tmp_path / "operator")
    pack_outbox(place.outbox, SERVER, tmp_path / "b", KEY)

    def fail_second(item, file):
        if operator.files:
            raise StorageError("full")
        operator.files.append((item.name, file.read_bytes()))

    with pytest.raises(StorageError):
        operator.take(tmp_path / "b", fail_second)
    new, _ = operator.take(tmp_path / "b")
    assert len(new) == 1
    assert sorted(content for _, content in operator.files) == sorted([delta(1), delta(2)])


def test_what_is_packed_is_sealed_where_a_key_is_pinned(place, tmp_path):
    operator = Operator(tmp_path / "operator")
    seal_key = create_seal_key(tmp_path / "keys")
    pack_outbox(place.outbox, SERVER, tmp_path / "b", KEY, seal_key=seal_key)
    operator.take(tmp_path / "b")
    contents = [content for _, content in operator.files]
    assert all(is_sealed(content) for content in contents)
    assert [open_sealed(one, [load_seal_key(tmp_path / "keys")]) for one in contents] == [delta(1), delta(2)]
    assert delta(1)[200:300] not in (tmp_path / "b").read_bytes()
    pack_outbox(place.outbox, SERVER, tmp_path / "c", KEY, seal_key=seal_key)
    assert operator.take(tmp_path / "c")[0] == []  # other bytes, the same updates
    assert len(close_updates(place.outbox, open_parcel(tmp_path / "b").content, event="handed-over")) == 2


def test_a_receipt_closes_nothing_that_was_not_packed_here(place, tmp_path):
    pack_outbox(place.outbox, SERVER, tmp_path / "b", KEY)
    honest = open_parcel(tmp_path / "b").content
    other_bytes = [
        type(one)(**{**vars(one), "sha256": "a" * 63 + str(place)}) for place, one in enumerate(honest.items)
    ]
    for content in (
        new_content("receipt", "https://elsewhere.example/", honest.items),
        new_content("receipt", SERVER, other_bytes),
    ):
        assert close_updates(place.outbox, content, event="receipt") == []
    assert states(place) == ["waiting", "waiting"]
    never_packed = Place(tmp_path / "another")
    never_packed.queue(delta(1))
    assert close_updates(never_packed.outbox, honest, event="receipt") == []
    assert states(never_packed) == ["waiting"]


def test_a_cancelled_update_is_neither_packed_nor_closed(place, tmp_path):
    pack_outbox(place.outbox, SERVER, tmp_path / "b", KEY)
    first = place.outbox.entries()[0]
    place.outbox.cancel(first.update_id)
    assert len(close_updates(place.outbox, open_parcel(tmp_path / "b").content, event="receipt")) == 1
    assert states(place) == ["cancelled", "sent"]


def test_a_crash_while_closing_leaves_an_update_that_is_closed_again(place, tmp_path):
    from dafne_dante.federation.outbox_states import begin
    from dafne_dante.federation.sending import recover

    pack_outbox(place.outbox, SERVER, tmp_path / "b", KEY)
    content = open_parcel(tmp_path / "b").content
    first = place.outbox.entries()[0]
    place.outbox.audit.append("receipt", {"update_id": first.update_id})
    place.outbox.change(first.update_id, begin)
    dispatcher = place.dispatcher(None)
    recover(place.outbox, patience=dispatcher.patience, share=0.0, mark="")
    assert states(place) == ["waiting", "waiting"]
    assert len(close_updates(place.outbox, content, event="receipt")) == 2


def test_who_may_pack(tmp_path):
    settings = Settings(folder=tmp_path, operator_key=public_key_text(OTHER_KEY))
    assert packers(settings, SERVER, ["Leg"]) == {public_key_text(OTHER_KEY)}
    trust_key(tmp_path, public_key_text(KEY), "Hospital B / Ward 3")
    assert packers(settings, SERVER, ["Leg"]) == {public_key_text(KEY), public_key_text(OTHER_KEY)}


def test_the_sender_is_whom_the_operator_trusts(place, tmp_path):
    pack_outbox(place.outbox, SERVER, tmp_path / "b", KEY)
    settings = Settings(folder=tmp_path / "operator")
    with pytest.raises(TrustError):
        sender_name(open_parcel(tmp_path / "b"), settings)
    trust_key(settings.folder, public_key_text(KEY), "Hospital B / Ward 3")
    assert sender_name(open_parcel(tmp_path / "b"), settings) == "Hospital-B-Ward-3"


def test_a_bundle_of_another_kind_is_told(tmp_path):
    write_parcel(tmp_path / "r", new_content("receipt", SERVER, []), [], KEY)
    with pytest.raises(ServerAnswerError):
        receive_updates(open_parcel(tmp_path / "r"), tmp_path, tmp_path, lambda item, file: None)
