"""A site withdraws an update: before it left, while it waits at the operator's, and after it was merged."""

import json
from uuid import UUID

import pytest
from deltas import KEY, OTHER_KEY, TRUSTED
from federations import Federation
from merging import QuickOperator
from outboxes import SERVER, FakeClient, Place, delta
from test_operator import TYPE

from dafne_dante.config import Settings, load_settings, write_settings
from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.delta.signing import public_key_text
from dafne_dante.errors import DeltaError, ServerUnreachableError
from dafne_dante.federation.ledger import Store
from dafne_dante.federation.outbox import open_outbox
from dafne_dante.federation.withdrawal import is_withdrawal, make_withdrawal, open_withdrawal
from dafne_dante.federation.withdrawing import begin_withdrawal, send_withdrawal

ID = str(UUID(int=1 << 100, version=4))


def test_a_withdrawal_comes_back_as_it_was_made():
    content = make_withdrawal(ID, "Leg", KEY)
    assert is_withdrawal(content)
    assert not is_withdrawal(delta(1))
    found = open_withdrawal(content, trusted_keys=TRUSTED, model_type="Leg")
    assert (found.update_id, found.model_type, found.public_key) == (ID, "Leg", public_key_text(KEY))


def test_every_flipped_byte_of_a_withdrawal_is_found():
    content = make_withdrawal(ID, "Leg", KEY)
    for place in range(len(content)):
        with pytest.raises(DeltaError):
            open_withdrawal(
                content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
                trusted_keys=TRUSTED,
                model_type="Leg",
            )


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"version": True}, {"more": ""}, {"statement": 7}, {"statement": "{}"}, {"signature": []}],
)
def test_a_malformed_withdrawal_is_refused(change):
    document = parse_canonical(make_withdrawal(ID, "Leg", KEY), "it") | change
    with pytest.raises(DeltaError):
        open_withdrawal(canonical_bytes(document), trusted_keys=TRUSTED, model_type="Leg")


def test_a_withdrawal_by_a_stranger_or_for_another_type_is_refused():
    for key, model_type in ((OTHER_KEY, "Leg"), (KEY, "Brain")):
        with pytest.raises(DeltaError):
            open_withdrawal(make_withdrawal(ID, "Leg", key), trusted_keys=TRUSTED, model_type=model_type)
    for update_id in ("", "../x", f"A{ID[1:]}"):
        with pytest.raises(DeltaError):
            make_withdrawal(update_id, "Leg", KEY)


@pytest.fixture
def operator(tmp_path):
    return QuickOperator(tmp_path)


def ledger(operator):
    return Store(operator.settings.folder / "operator" / TYPE).load()


def test_what_still_waits_goes_and_is_not_kept(operator):
    operator.send(operator.delta(0.01, update_id=UUID(ID)))
    operator.send(make_withdrawal(ID, TYPE, operator.keys["site1"]))
    report = operator.merge()
    assert (report.merged, report.version, report.quarantined) == (0, None, ())
    assert [ID in one.reason for one in report.withdrawn] == [True]
    assert (operator.depot.pending(), operator.quarantined()) == ([], {})
    operator.send(operator.delta(0.01, update_id=UUID(ID)))  # nor is it taken when it comes late, or again
    assert operator.merge().merged == 0
    assert operator.depot.pending() == []


def test_others_are_merged_without_it(operator):
    operator.send(operator.delta(0.01, update_id=UUID(ID)))
    operator.send(operator.delta(0.04, site="site2"))
    operator.send(make_withdrawal(ID, TYPE, operator.keys["site1"]))
    assert operator.merge().merged == 1
    assert operator.moved() == pytest.approx(0.04, abs=1e-3)


def test_of_what_was_merged_the_operator_sees_which_versions_hold_it(operator):
    operator.send(operator.delta(0.01, update_id=UUID(ID)))
    first = operator.merge().version
    operator.send(operator.delta(0.02, site="site2"))
    second = operator.merge().version
    operator.send(make_withdrawal(ID, TYPE, operator.keys["site1"]))
    report = operator.merge()
    [told] = report.as_json()["withdrawn"]
    assert f"versions {first}, {second} hold it" in told["reason"]
    assert f"publish rollback {operator.first}" in told["reason"]
    assert ledger(operator).updates[ID].withdrawn
    assert operator.shelf.versions(TYPE)[-1] == second


def test_no_site_withdraws_what_another_sent(operator):
    operator.send(operator.delta(0.01, update_id=UUID(ID)))
    operator.merge()
    forged = operator.send(make_withdrawal(ID, TYPE, operator.keys["site2"]))
    stranger = operator.send(make_withdrawal(ID, TYPE, operator.keys["stranger"]))
    report = operator.merge()
    assert report.withdrawn == ()
    assert set(operator.quarantined()) == {forged, stranger}
    assert not ledger(operator).updates[ID].withdrawn


def test_another_site_cannot_make_an_update_vanish_while_it_waits(operator):
    waiting = operator.send(operator.delta(0.01, update_id=UUID(ID)))
    operator.send(make_withdrawal(ID, TYPE, operator.keys["site2"]))
    operator.merge()
    assert waiting in operator.quarantined()  # for the operator to look at; not gone


def test_what_never_left_is_cancelled_and_nobody_is_told(tmp_path):
    place = Place(tmp_path)
    place.queue(delta(1))
    withdrawn = begin_withdrawal(place.outbox, ID[:8], KEY)
    assert (withdrawn.entry.state, withdrawn.content) == ("cancelled", b"")


def test_what_left_is_withdrawn_and_the_audit_log_says_so(tmp_path):
    place, client = Place(tmp_path), FakeClient()
    place.queue(delta(1))
    place.dispatcher(client).send_due()
    withdrawn = begin_withdrawal(place.outbox, ID, KEY)
    send_withdrawal(place.outbox, withdrawn, client)
    assert is_withdrawal(client.taken[-1])
    failing = FakeClient(sent=[ServerUnreachableError("gone")])
    with pytest.raises(ServerUnreachableError):
        send_withdrawal(place.outbox, withdrawn, failing)
    assert place.events()[2:] == [
        ("withdrawing", None),
        ("withdrawn", "arrived"),
        ("withdrawing", None),
        ("withdrawn", "unknown"),
    ]
    assert place.outbox.audit.verify(place.outbox.audit_head()).fault == ""


def test_the_command_withdraws_over_the_network_and_by_stick(tmp_path, command):
    federation = Federation(tmp_path / "server")
    kind = federation.model_type
    (tmp_path / "m").write_bytes(b"model")
    federation.shelf.publish_copy(kind, tmp_path / "m")
    folder = tmp_path / "configuration"
    with federation.server:
        write_settings(Settings(folder=folder, server=federation.url, api_key=federation.keys["site"], retries=0))
        command("keys", "create")
        open_outbox(load_settings(folder)).queue(
            delta(1, model_type=kind), server=federation.url, dice=0.5, trigger="nightly"
        )
        command("outbox", "send")
        code, out, err = command("withdraw", ID, "--json")
        assert (code, json.loads(out)) == (0, {"update_id": ID, "state": "sent", "told": True}), err
    contents = [federation.shelf.upload_path(kind, one.filename).read_bytes() for one in federation.uploads()]
    assert sorted(map(is_withdrawal, contents)) == [False, True]
    assert command("withdraw", ID, "--to", tmp_path / "stick", "--json")[0] == 0
    assert json.loads(command("bundle", "show", tmp_path / "stick", "--json")[1])["kind"] == "updates"
    assert command("withdraw", "nobody")[0] == 1
    assert SERVER not in err
