"""Looking again and again: faults are told once for each cause and end nothing."""

from threading import Event

import pytest

from dafne_dante.errors import StorageError
from dafne_dante.host.looking import Looking


class Scene:
    """Looks that come to what a test wrote down, and one more that tells that all are over."""

    def __init__(self, *outcomes, **options):
        self.outcomes, self.told, self.looks, self.done = list(outcomes), [], 0, Event()
        self.looking = Looking(self.look, self.told.append, name="test", **{"look_s": 0.001, **options})

    def look(self):
        self.looks += 1
        if not self.outcomes:
            self.looking.stop()
            self.done.set()
            return
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome

    def run(self):
        self.looking.start()
        assert self.done.wait(10)
        return self.told


def test_a_cause_is_told_once_and_again_after_a_look_that_went_well():
    full, gone = StorageError("the disk is full"), StorageError("the disk is gone")
    assert Scene(full, full, gone, gone, None, gone).run() == [str(full), str(gone), str(gone)]


def test_a_fault_of_our_own_ends_no_looking_and_says_nothing_of_what_it_held():
    told = Scene(ValueError("Doe^Jane"), None).run()
    assert len(told) == 1 and "ValueError" in told[0] and "Doe" not in told[0]


@pytest.mark.parametrize("at_once", [True, False])
def test_the_first_look_is_now_or_after_the_pause(at_once):
    scene = Scene(look_s=0.2, at_once=at_once)
    scene.looking.start()
    assert scene.done.wait(0.05) == at_once
    scene.looking.stop()


def test_stopped_it_looks_no_more():
    scene = Scene(*[None] * 100, look_s=0.01)
    scene.looking.stop()
    scene.looking.start()
    assert not scene.done.wait(0.1) and scene.looks == 0
