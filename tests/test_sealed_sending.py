"""Updates leave sealed where a seal key is pinned, or not at all, and the operator opens them."""

import hashlib

import pytest
from merging import QuickOperator
from outboxes import FakeClient, Place, delta
from test_operator import TYPE

from dafne_dante.config import Settings
from dafne_dante.delta.sealing import create_seal_key, is_sealed, load_seal_key, open_sealed, seal
from dafne_dante.errors import TrustError
from dafne_dante.federation.outbox import settings_mark
from dafne_dante.federation.sending import dispatch_for


@pytest.fixture
def keys(tmp_path):
    return [create_seal_key(tmp_path / name) for name in ("operator", "other")]


def test_what_leaves_is_sealed_and_what_stays_is_not(tmp_path, keys):
    place, client = Place(tmp_path / "outbox"), FakeClient(seal_key=keys[0])
    place.queue()
    tried = place.dispatcher(client, seal_key=keys[0]).send_one(place.only().update_id)
    assert (tried.error, place.only().state) == (None, "sent")
    (taken,) = client.taken
    assert is_sealed(taken)
    assert open_sealed(taken, [load_seal_key(tmp_path / "operator")]) == delta()
    leaving = next(record for record in place.outbox.audit.records() if record["event"] == "leaving")
    assert leaving["sha256"] == hashlib.sha256(delta()).hexdigest()
    assert (leaving["sealed_sha256"], leaving["sealed_bytes"]) == (hashlib.sha256(taken).hexdigest(), len(taken))


@pytest.mark.parametrize("named", ["", "other"])
def test_nothing_leaves_when_the_type_names_another_key_or_none(tmp_path, keys, named):
    place, client = Place(tmp_path / "outbox"), FakeClient(seal_key=keys[1] if named else "")
    place.queue()
    tried = place.dispatcher(client, seal_key=keys[0]).send_one(place.only().update_id)
    assert isinstance(tried.error, TrustError)
    assert (client.taken, place.events()) == ([], [])
    assert (place.only().state, place.only().why, place.only().next_try_s) == ("waiting", "seal-key", None)
    client.seal_key = keys[0]
    assert place.dispatcher(client, seal_key=keys[0]).send_due() == [], "held until a person or the settings change"
    assert [one.error for one in place.dispatcher(client, seal_key=keys[0], mark="b").send_due()] == [None]


def test_without_a_pinned_key_it_leaves_as_it_is(tmp_path, keys):
    place, client = Place(tmp_path / "outbox"), FakeClient(seal_key=keys[0])
    place.queue()
    assert place.dispatcher(client).send_one(place.only().update_id).error is None
    assert client.taken == [delta()]


def test_the_settings_pin_it(tmp_path, keys):
    place = Place(tmp_path / "outbox")
    settings = Settings(folder=tmp_path, seal_key=keys[0])
    assert dispatch_for(settings, place.outbox, FakeClient(), "https://a.example/").seal_key == keys[0]
    assert settings_mark(settings, "salt") != settings_mark(Settings(folder=tmp_path), "salt")


class TestOperator:
    """Who opens them."""

    @pytest.fixture
    def operator(self, tmp_path):
        return QuickOperator(tmp_path)

    def test_a_sealed_update_is_merged_like_an_open_one(self, operator):
        key = create_seal_key(operator.settings.folder)
        operator.send(seal(operator.delta(0.002, site="site1"), key))
        operator.send(operator.delta(0.004, site="site2"))
        report = operator.merge()
        assert (report.merged, report.quarantined) == (2, ())
        assert operator.moved() == pytest.approx(0.003, rel=1e-3)
        assert operator.shelf.uploads(TYPE) == []

    def test_what_cannot_be_opened_blocks_nobody(self, operator, tmp_path):
        stranger = create_seal_key(tmp_path / "stranger-seal")
        operator.send(seal(operator.delta(0.002, site="site1"), stranger))
        operator.send(operator.delta(0.004, site="site2"))
        assert operator.merge().merged == 1
        (reason,) = operator.quarantined().values()
        assert "sealed to this operator's key" in reason
        key = create_seal_key(operator.settings.folder)
        content = bytearray(seal(operator.delta(0.002, site="site1"), key))
        content[-1] ^= 1
        operator.send(bytes(content))
        assert operator.merge().merged == 0
        assert any("changed one" in reason for reason in operator.quarantined().values())

    def test_sealing_twice_is_still_a_replay(self, operator):
        key, content = create_seal_key(operator.settings.folder), operator.delta(0.002)
        operator.send(seal(content, key))
        assert operator.merge().merged == 1
        operator.send(seal(content, key))
        assert operator.merge().merged == 0
        assert any("send each only once" in reason for reason in operator.quarantined().values())
