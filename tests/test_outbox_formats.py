"""An outbox that an earlier release made is taken over with all that it holds."""

from outboxes import FakeClient, Place, delta
from test_outbox import DAY_S, OFFLINE, alter

FORMAT_1 = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE updates (
    place INTEGER PRIMARY KEY, update_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('delta', 'full-model')),
    server TEXT NOT NULL, model_type TEXT NOT NULL, sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    dice REAL NOT NULL, trigger TEXT NOT NULL, queued_s REAL NOT NULL, changed_s REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sending', 'sent', 'refused', 'cancelled')),
    why TEXT NOT NULL, told TEXT NOT NULL, attempts INTEGER NOT NULL, failures INTEGER NOT NULL,
    doubtful INTEGER NOT NULL, next_try_s REAL, held_by TEXT NOT NULL
);
CREATE INDEX by_state ON updates (state, place)
"""


def test_an_outbox_of_the_first_format_loses_nothing(tmp_path):
    place = Place(tmp_path / "outbox")
    for number in (1, 2):
        place.queue(delta(number))
    place.dispatcher(FakeClient(asked=[OFFLINE])).send_due()
    before = place.outbox.entries()
    columns = "place, update_id, kind, server, model_type, sha256, size_bytes, dice, trigger, queued_s, changed_s, "
    columns += "state, why, told, attempts, failures, doubtful, next_try_s, held_by"
    alter(
        place.folder,
        "DROP INDEX by_state",
        "ALTER TABLE updates RENAME TO newer",
        "ALTER TABLE facts RENAME TO newer_facts",
        *FORMAT_1.split(";"),
        f"INSERT INTO updates SELECT {columns} FROM newer",
        "INSERT INTO facts SELECT * FROM newer_facts",
        "DROP TABLE newer",
        "DROP TABLE newer_facts",
        "PRAGMA user_version = 1",
    )
    assert place.outbox.entries() == before
    place.clock.now_s += DAY_S
    place.dispatcher(client := FakeClient()).send_due()
    assert client.taken == [delta(1), delta(2)]
