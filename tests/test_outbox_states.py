"""The states of an update: only the drawn transitions exist; where the outbox is; what other settings are."""

from dataclasses import replace

import pytest
from outboxes import SERVER

from dafne_dante.config import Settings
from dafne_dante.errors import DeltaError
from dafne_dante.federation.outbox import open_outbox, outbox_exists, outbox_folder, settings_mark
from dafne_dante.federation.outbox_states import WORDS, Entry, arrive, begin, cancel, is_due, refuse, retry, wait

ENTRY = Entry("id", "delta", SERVER, "Leg", "0" * 64, 1, 0.5, "nightly", 0.0, 0.0)
ALLOWED = {
    "waiting": {"begin", "retry", "cancel", "refuse", "wait"},
    "sending": {"arrive", "refuse", "wait"},
    "refused": {"retry", "cancel"},
    "sent": set(),
    "cancelled": set(),
}


@pytest.mark.parametrize("state", ALLOWED)
def test_only_the_drawn_transitions_exist(state):
    deeds = {
        "begin": begin, "arrive": arrive, "retry": retry, "cancel": cancel,
        "wait": lambda entry, now_s: wait(entry, now_s, why="offline", pause_s=None, doubtful=False),
        "refuse": lambda entry, now_s: refuse(entry, now_s, why="refused", told=""),
    }  # fmt: skip
    for name, deed in deeds.items():
        entry = replace(ENTRY, state=state)
        if name in ALLOWED[state]:
            assert deed(entry, 1.0).why in WORDS
        else:
            with pytest.raises(DeltaError, match=state):
                deed(entry, 1.0)
    assert is_due(replace(ENTRY, state=state), 1.0, "") == (state == "waiting")


def test_where_the_outbox_is_and_what_marks_settings(tmp_path):
    settings = Settings(folder=tmp_path, api_key="secret")
    assert not outbox_exists(settings)
    outbox = open_outbox(settings)
    assert outbox_exists(settings)
    assert outbox_folder(settings) == tmp_path / "outbox"
    mark = settings_mark(settings, outbox.salt)
    assert open_outbox(settings).salt == outbox.salt
    others = [replace(settings, api_key="other"), replace(settings, proxy="none"), replace(settings, chunk_mib=5)]
    assert len({mark, *(settings_mark(other, outbox.salt) for other in others), settings_mark(settings, "x")}) == 5
