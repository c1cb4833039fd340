"""A program: queue, send or cancel updates, killed or failing at the n-th change of the disk, for every n.

    python crashing_outbox.py FOLDER c|python kill|fail|full STEP SCENARIO...

Every STEP-th point is tried. The server is a folder: an upload is a file that is written and renamed there, which are
points as well, so that a kill finds it before, in the middle of, and after what the server takes. After each attempt
other processes go on, as they would, until nothing waits. Then every update is at the server, as one after the
operator dropped repeated update_ids, whole; none that was cancelled for good is; and the audit log is unbroken and
tells of every try whose bytes arrived.
Prints one JSON object: for each scenario how many points there were, how many different results, and the ends.
"""

import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

from crashing import DONE, ENDS, MODES, NOT_REACHED, attempt
from crashing_seams import UnderPython, UnderTheCLibrary
from deltas import KEY, TRUSTED
from outboxes import SERVER, FakeClient, Place, delta

from dafne_dante.delta.envelope import open_envelope
from dafne_dante.errors import UploadUnknownError
from dafne_dante.federation.withdrawal import is_withdrawal, open_withdrawal
from dafne_dante.federation.withdrawing import begin_withdrawal

DAY_S = 86_400.0
DELTAS = {number: delta(number) for number in (1, 2)}
IDS = {number: open_envelope(content, trusted_keys=None).manifest.update_id for number, content in DELTAS.items()}


class FolderClient(FakeClient):
    """A server that is a folder; with `loses_answers` it takes what comes and says nothing."""

    def __init__(self, folder, *, loses_answers=False):
        super().__init__()
        self.folder, self.loses_answers = folder, loses_answers
        folder.mkdir(exist_ok=True)

    def upload(self, model_type, path, dice, progress=None):
        name = f"{len(list(self.folder.iterdir()))}"
        try:
            shutil.copyfile(path, self.folder / f"{name}.part")
            os.replace(self.folder / f"{name}.part", self.folder / f"{name}.model")
        except OSError as error:
            raise UploadUnknownError("the server fell silent") from error
        if self.loses_answers:
            raise UploadUnknownError("the answer is lost")


def place_in(root):
    return Place(root / "outbox")


def send(root, **options):
    place_in(root).dispatcher(FolderClient(root / "server", **options)).send_due()


def queue(root, number):
    place_in(root).queue(DELTAS[number])
    with suppress(OSError):  # the test's own mark
        (root / f"queued{number}").touch()


def nothing(root):
    (root / "server").mkdir(parents=True)


def one_queued(root):
    nothing(root)
    queue(root, 1)


def one_lost(root):
    """Sent once, and the answer lost; it is due again."""
    one_queued(root)
    send(root, loses_answers=True)
    place_in(root).outbox.retry(IDS[1])


def one_torn(root):
    """Killed while it was being sent, with half a record at the end of the audit log."""
    one_queued(root)
    place = place_in(root)

    class Dies(FakeClient):
        def upload(self, *words):
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        place.dispatcher(Dies()).send_due()
    with (place.folder / "audit.jsonl").open("ab") as stream:
        stream.write(b'{"at":"2027-01-')


def queue_and_send(root):
    queue(root, 1)
    send(root)


def queue_and_lose(root):
    queue(root, 1)
    send(root, loses_answers=True)


def send_two(root):
    queue(root, 2)
    send(root)


def send_one(root):
    place_in(root).dispatcher(FolderClient(root / "server")).send_one(IDS[1])


def cancel(root):
    place_in(root).outbox.cancel(IDS[1])


def withdraw(root):
    begin_withdrawal(place_in(root).outbox, IDS[1], KEY)
    send(root)


def retry_and_send(root):
    place_in(root).outbox.retry(IDS[1])
    send(root)


# name: (what is there before, what is done, updates that may leave)
SCENARIOS = {
    "begin": (nothing, queue_and_send, (1,)),
    "lose": (nothing, queue_and_lose, (1,)),
    "two": (one_queued, send_two, (1, 2)),
    "again": (one_lost, send, (1,)),
    "recover": (one_torn, send_one, (1,)),
    "cancel": (one_queued, cancel, ()),
    "retry": (one_lost, retry_and_send, (1,)),
    "withdraw": (one_lost, withdraw, ()),
}


def go_on(root, numbers):
    """What another process does from now on: the outbox in the end, and its updates before."""
    place = place_in(root)
    dispatcher = place.dispatcher(FolderClient(root / "server"))
    outbox = dispatcher.outbox
    before = outbox.entries()
    known = {entry.update_id for entry in before}
    for number in numbers:
        assert IDS[number] in known or not (root / f"queued{number}").exists(), "what was queued is there"
        # By whoever was not told that it is queued.
        outbox.queue(DELTAS[number], server=SERVER, dice=0.75, trigger="nightly")
    for _ in range(6):
        place.clock.now_s += DAY_S
        if not outbox.entries(finished=False):
            break
        dispatcher.send_due()
    return outbox, [(entry.state, entry.why, entry.attempts) for entry in before]


def check(root, name, numbers, ended):
    outbox, before = go_on(root, numbers)
    states = {entry.update_id: entry.state for entry in outbox.entries()}
    everything = [path.read_bytes() for path in sorted((root / "server").glob("*.model"))]
    arrived = [content for content in everything if not is_withdrawal(content)]
    merged = {open_envelope(content, trusted_keys=None).manifest.update_id: content for content in arrived}
    expected = {IDS[number]: DELTAS[number] for number in numbers}
    if name == "cancel":
        assert ended != DONE or not merged
        assert merged == {} if states[IDS[1]] == "cancelled" else merged == {IDS[1]: DELTAS[1]}
    elif name == "withdraw":
        check_withdrawn(outbox, states[IDS[1]], [one for one in everything if is_withdrawal(one)], ended)
    else:
        assert merged == expected
        assert set(states.values()) == {"sent"}
    assert set(arrived) <= set(DELTAS.values()), "no upload is other bytes than those that were queued"
    assert len(arrived) <= len(merged) + 2
    assert place_in(root).files() == []
    check_log(outbox, everything)
    return before


def check_withdrawn(outbox, state, withdrawals, ended):
    """Cancelled and withdrawn, or neither; whoever was told that it is done finds it done."""
    assert state in ("cancelled", "sent") and (state == "cancelled" or ended != DONE)
    assert bool(withdrawals) == (state == "cancelled"), "what is cancelled after it may have left is withdrawn"
    told = {open_withdrawal(one, trusted_keys=TRUSTED, model_type="Leg").update_id for one in withdrawals}
    assert told <= {IDS[1]} and len(withdrawals) <= 3
    kinds = Counter(entry.kind for entry in outbox.entries())
    assert kinds["withdrawal"] == (state == "cancelled"), "one withdrawal, however often it was tried"
    assert not outbox.entries(finished=False)


def check_log(outbox, arrived):
    log = outbox.audit
    found = log.verify(outbox.audit_head())
    assert (found.fault, found.torn_bytes) == ("", 0), found
    leaving = Counter(record["sha256"] for record in log.records() if record["event"] == "leaving")
    taken = Counter(hashlib.sha256(content).hexdigest() for content in arrived)
    assert all(leaving[digest] >= count for digest, count in taken.items()), "nothing arrived that the log has not"
    tries = [(record["update_id"], record["attempt"]) for record in log.records() if record["event"] == "leaving"]
    assert len(set(tries)) == len(tries)
    ends = [(record["update_id"], record["attempt"]) for record in log.records() if record["event"] == "outcome"]
    assert len(set(ends)) == len(ends), "a try ends once"
    again = [record["may_be_there"] for record in log.records() if record["event"] == "leaving"]
    assert sum(again) >= len(arrived) - len(taken), "what may be there twice is said to be"


def try_all(root, name, mode, seam, step, scenarios, check):
    prepare, act, numbers = scenarios[name]
    (root / "before").mkdir()
    prepare(root / "before")
    ends, nth, results = Counter(), 1 - step, set()
    while True:
        nth += step
        shutil.copytree(root / "before", root / "now")
        ended = attempt(root / "now", act, seam, nth, mode)
        assert ended in ENDS, ended
        try:
            results.add(str(check(root / "now", name, numbers, DONE if ended == NOT_REACHED else ended)))
        except AssertionError as error:
            raise AssertionError(f"{name}, point {nth}, mode {mode}: {error}") from error
        shutil.rmtree(root / "now")
        ends[ENDS[ended]] += 1
        if ended == NOT_REACHED:
            return {"points": nth - step, "results": len(results), **ends}


def main(folder, where, how, step, *names, scenarios=SCENARIOS, check=check):
    seam = {"c": UnderTheCLibrary, "python": UnderPython}[where]()
    answers = {}
    for name in names:
        (Path(folder) / name).mkdir()
        seam.disarm()
        answers[name] = try_all(Path(folder) / name, name, MODES[how], seam, int(step), scenarios, check)
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
