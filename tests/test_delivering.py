"""An improvement's delta goes through the outbox: what cannot leave now leaves with a later one."""

from dataclasses import replace

import pytest
from outboxes import SERVER, FakeClient, delta

from dafne_dante.config import Settings
from dafne_dante.errors import ServerUnreachableError, StorageError, TransportError
from dafne_dante.federation.outbox import open_outbox
from dafne_dante.federation.outbox_states import begin
from dafne_dante.plugin.delivering import Delivery, deliver, send_what_waits, sent_in_words
from dafne_dante.plugin.pausing import set_paused


@pytest.fixture
def deliver_one(tmp_path):
    settings, told = Settings(folder=tmp_path), []

    def run(number, client):
        delivery = Delivery(SERVER, 0.5, "improve-button")
        return deliver(delta(number), delivery, settings, client, say=told.append)

    run.outbox, run.told = lambda: open_outbox(settings), told
    return run


def test_what_arrives_is_told_to_have_arrived(deliver_one):
    entry = deliver_one(1, client := FakeClient())
    assert (entry.state, entry.trigger, client.taken, deliver_one.told) == ("sent", "improve-button", [delta(1)], [])


@pytest.mark.parametrize(
    ("client", "error", "why"),
    [
        (FakeClient(asked=[ServerUnreachableError("no answer")]), ServerUnreachableError, "offline"),
        (FakeClient(takes_deltas=False), TransportError, "no-deltas"),
    ],
)
def test_what_does_not_arrive_waits_and_says_where(deliver_one, client, error, why):
    with pytest.raises(error):
        deliver_one(1, client)
    [entry] = deliver_one.outbox().entries()
    assert (entry.state, entry.why, client.taken) == ("waiting", why, [])
    assert entry.update_id in deliver_one.told[0]


def test_those_that_waited_go_with_the_next_one(deliver_one):
    with pytest.raises(ServerUnreachableError):
        deliver_one(1, FakeClient(asked=[ServerUnreachableError("no answer")]))
    deliver_one.outbox().retry(deliver_one.outbox().entries()[0].update_id)
    deliver_one(2, client := FakeClient())
    assert client.taken == [delta(2), delta(1)]
    assert "1 of 1 updates that waited" in deliver_one.told[-1]


def test_where_another_one_cannot_go_this_one_has_still_arrived(deliver_one):
    for number in (1, 2):
        content = delta(number)
        deliver_one.outbox().queue(content, server=SERVER, dice=0.5, trigger="nightly")
    entry = deliver_one(3, client := FakeClient(sent=[None, StorageError("full")], keeps=False))
    assert entry.state == "sent"
    assert client.taken == [delta(3), delta(2)]
    assert "1 of 2 updates that waited" in deliver_one.told[-1]


def with_one_that_waits(tmp_path, **changes):
    settings = Settings(folder=tmp_path, server=SERVER, api_key="k", **changes)
    open_outbox(settings).queue(delta(1), server=SERVER, dice=0.5, trigger="nightly")
    return settings


def no_server(settings):
    raise AssertionError("nothing is due")


def test_what_waits_is_sent_by_whoever_looks_and_nothing_is_asked_without_need(tmp_path):
    settings, client = with_one_that_waits(tmp_path), FakeClient()
    [tried] = send_what_waits(settings, connecting=lambda settings: client)
    assert (tried.entry.state, client.taken) == ("sent", [delta(1)])
    assert send_what_waits(settings, connecting=no_server) == []


def test_a_server_that_is_away_is_left_alone_until_the_update_is_due_again(tmp_path):
    settings, client = with_one_that_waits(tmp_path), FakeClient(asked=[ServerUnreachableError("no answer")])
    [tried] = send_what_waits(settings, connecting=lambda settings: client)
    assert sent_in_words([tried]) == "0 of 1 updates that waited in the outbox were sent; no answer"
    assert send_what_waits(settings, connecting=no_server) == []


def test_a_pause_holds_what_waits_until_a_person_asks(tmp_path):
    settings, client = with_one_that_waits(tmp_path), FakeClient()
    set_paused(settings, paused=True)
    assert send_what_waits(settings, connecting=no_server) == []
    assert len(send_what_waits(settings, connecting=lambda settings: client, asked=True)) == 1


def test_without_a_server_or_for_another_one_nothing_is_sent(tmp_path):
    settings = with_one_that_waits(tmp_path)
    for server in ("", "https://other.example/"):
        assert send_what_waits(replace(settings, server=server), connecting=no_server) == []


def test_what_a_dead_process_was_sending_is_settled(tmp_path):
    settings, client = with_one_that_waits(tmp_path), FakeClient()
    [entry] = open_outbox(settings).entries()
    open_outbox(settings).change(entry.update_id, begin)
    assert send_what_waits(settings, connecting=lambda settings: client) == [], "it waits for its next try"
    assert open_outbox(settings).entries()[0].state == "waiting"
