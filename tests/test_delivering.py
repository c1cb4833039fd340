"""An improvement's delta goes through the outbox: what cannot leave now leaves with a later one."""

import pytest
from outboxes import SERVER, FakeClient, delta

from dafne_dante.config import Settings
from dafne_dante.errors import ServerUnreachableError, StorageError, TransportError
from dafne_dante.federation.outbox import open_outbox
from dafne_dante.plugin.delivering import Delivery, deliver


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
