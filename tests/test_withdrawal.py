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
from dafne_dante.delta.sealing import create_seal_key, load_seal_key, open_sealed, seal
from dafne_dante.delta.signing import public_key_text
from dafne_dante.errors import DeltaError, ServerUnreachableError, UploadUnknownError
from dafne_dante.federation.ledger import Store
from dafne_dante.federation.outbox import Limits, open_outbox
from dafne_dante.federation.withdrawal import is_withdrawal, make_withdrawal, open_withdrawal
from dafne_dante.federation.withdrawing import begin_withdrawal

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


def test_a_sealed_withdrawal_is_opened_and_taken(operator, tmp_path):
    key = create_seal_key(operator.settings.folder)
    operator.send(operator.delta(0.01, update_id=UUID(ID)))
    operator.send(seal(make_withdrawal(ID, TYPE, operator.keys["site1"]), key))
    report = operator.merge()
    assert (report.merged, len(report.withdrawn), report.quarantined) == (0, 1, ())
    strange = operator.send(seal(make_withdrawal(ID, TYPE, operator.keys["site1"]), create_seal_key(tmp_path / "x")))
    assert operator.merge().withdrawn == ()
    assert strange in operator.quarantined()


def test_what_never_left_is_cancelled_and_nobody_is_told(tmp_path):
    place = Place(tmp_path)
    place.queue(delta(1))
    withdrawn = begin_withdrawal(place.outbox, ID[:8], KEY)
    assert (withdrawn.entry.state, withdrawn.withdrawal) == ("cancelled", None)
    assert place.events() == [("cancelled", None)]
    assert place.files() == []


def sent_and_withdrawn(place, client=None):
    place.queue(delta(1))
    place.dispatcher(FakeClient() if client is None else client).send_due()
    return begin_withdrawal(place.outbox, ID, KEY)


def test_a_withdrawal_waits_for_the_network_and_the_audit_log_says_what_became_of_it(tmp_path):
    place = Place(tmp_path)
    withdrawn = sent_and_withdrawn(place)
    assert (withdrawn.entry.state, withdrawn.withdrawal.kind, withdrawn.withdrawal.withdraws) == (
        "sent", "withdrawal", ID
    )  # fmt: skip
    again = begin_withdrawal(place.outbox, ID, KEY)
    assert again.withdrawal == withdrawn.withdrawal, "one waits; a second is not needed"
    place.dispatcher(FakeClient(asked=[ServerUnreachableError("gone")])).send_due()
    place.clock.now_s += 30 * 86_400.0
    place.dispatcher(FakeClient(sent=[UploadUnknownError("lost")])).send_due()
    place.clock.now_s += 86_400.0
    place.dispatcher(client := FakeClient()).send_due()
    [content] = client.taken
    assert open_withdrawal(content, trusted_keys=TRUSTED, model_type="Leg").update_id == ID
    assert place.events()[2:] == [
        ("leaving", None), ("outcome", "unknown"), ("leaving", None), ("outcome", "arrived")
    ]  # fmt: skip
    leaving = [record for record in place.outbox.audit.records() if record.get("withdraws")]
    assert [(record["kind"], record["withdraws"], record["trigger"]) for record in leaving] == [
        ("withdrawal", ID, "withdraw")
    ] * 2
    assert place.outbox.audit.verify(place.outbox.audit_head()).fault == ""
    assert [entry.state for entry in place.outbox.entries()] == ["sent", "sent"]
    assert begin_withdrawal(place.outbox, ID, KEY).withdrawal.state == "waiting", "it can be said once more"


def test_what_may_have_left_is_cancelled_and_withdrawn_in_one(tmp_path):
    place = Place(tmp_path)
    withdrawn = sent_and_withdrawn(place, FakeClient(sent=[UploadUnknownError("lost")]))
    assert (withdrawn.entry.state, withdrawn.withdrawal.state) == ("cancelled", "waiting")
    assert place.files() == [withdrawn.withdrawal.sha256]


def test_a_full_outbox_has_room_for_a_withdrawal(tmp_path):
    place = Place(tmp_path, limits=Limits(updates=1))
    sent_and_withdrawn(place)
    assert place.outbox.entries(finished=False)[0].kind == "withdrawal"


def test_a_withdrawal_goes_to_no_type_that_takes_no_deltas(tmp_path):
    place = Place(tmp_path)
    sent_and_withdrawn(place)
    stock = FakeClient(takes_deltas=False)
    [tried] = place.dispatcher(stock, full_models=object()).send_due()
    assert (tried.entry.state, tried.entry.why, stock.taken) == ("waiting", "no-deltas", [])


def test_a_withdrawal_leaves_sealed_where_a_seal_key_is_pinned(tmp_path):
    place, key = Place(tmp_path / "outbox"), create_seal_key(tmp_path / "operator")
    sent_and_withdrawn(place)
    assert [one.entry.why for one in place.dispatcher(FakeClient(), seal_key=key).send_due()] == ["seal-key"]
    place.dispatcher(client := FakeClient(seal_key=key), seal_key=key, mark="b").send_due()
    opened = open_sealed(client.taken[0], [load_seal_key(tmp_path / "operator")])
    assert open_withdrawal(opened, trusted_keys=TRUSTED, model_type="Leg").update_id == ID


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
    # Without the server it waits and is to be seen; then it goes by stick, and only after the log has it.
    code, _, err = command("withdraw", ID)
    assert (code, "the withdrawal waits in the outbox" in err) == (1, True)
    [waiting] = json.loads(command("outbox", "list", "--json")[1])["updates"]
    assert (waiting["kind"], waiting["withdraws"]) == ("withdrawal", ID)
    assert f"withdrawal of {ID}" in command("outbox", "list")[1]
    assert command("withdraw", ID, "--to", tmp_path / "stick", "--json")[0] == 0
    told = json.loads(command("bundle", "show", tmp_path / "stick", "--json")[1])
    record = json.loads(command("audit", "show", "--json")[1])["records"][-1]
    assert (record["event"], record["withdraws"], record["bundle"]) == ("packed", ID, told["parcel_id"])
    assert [(item["name"], item["sha256"]) for item in told["items"]] == [(record["update_id"], record["sha256"])]
    assert command("bundle", "close", tmp_path / "stick")[0] == 0
    assert json.loads(command("outbox", "list", "--json")[1])["updates"] == []
    assert command("withdraw", "nobody")[0] == 1
    assert SERVER not in err
