"""An outbox with small deltas, a clock that a test sets, and a federation that behaves as it is told."""

from datetime import datetime, timezone
from uuid import UUID

from deltas import KEY, make_facts, make_updates

from dafne_dante.delta.encode import encode_delta
from dafne_dante.federation.client import Capability, ModelInfo
from dafne_dante.federation.outbox import Outbox
from dafne_dante.federation.outbox_states import Patience
from dafne_dante.federation.sending import Dispatcher

__all__ = ["SERVER", "START_S", "Clock", "FakeClient", "Place", "delta"]

SERVER = "https://federation.example/dafne/"
START_S = 1_800_000_000.0
# Fixed, for a test that makes a delta again expects the same bytes, in whichever minute.
CREATED = datetime.fromtimestamp(START_S, timezone.utc)


def delta(number=1, **facts):
    """A signed delta with an update_id of this number."""
    update_id = UUID(int=number << 100, version=4)
    return encode_delta(make_updates(), make_facts(**facts), KEY, update_id=update_id, created=CREATED)


class Clock:
    """Seconds since 1970, as a test sets them."""

    def __init__(self, now_s=START_S):
        self.now_s = now_s

    def __call__(self):
        return self.now_s


class FakeClient:
    """Takes files as a server would; `asked` and `sent` are raised one by one; what fails is kept if it `keeps`."""

    def __init__(self, *, takes_deltas=True, asked=(), sent=(), keeps=True, seal_key=""):
        self.taken, self.calls = [], []
        self.takes_deltas, self.asked, self.sent, self.keeps = takes_deltas, list(asked), list(sent), keeps
        self.seal_key = seal_key

    def model_info(self, model_type):
        self.calls.append(("info", model_type))
        if self.asked and (error := self.asked.pop(0)) is not None:
            raise error
        return ModelInfo("1", ("1",), {}, Capability(1, seal_key=self.seal_key) if self.takes_deltas else None)

    def upload(self, model_type, path, dice, progress=None):
        self.calls.append(("upload", model_type, dice))
        error = self.sent.pop(0) if self.sent else None
        if error is None or self.keeps:
            self.taken.append(path.read_bytes())
        if error is not None:
            raise error


class Place:
    """A site's outbox in a folder, as one process after the other would open it."""

    def __init__(self, folder, **limits):
        self.folder, self.clock, self.limits = folder, Clock(), limits

    @property
    def outbox(self):
        return Outbox(self.folder, clock=self.clock, **self.limits)

    def queue(self, content=None, **changes):
        options = {"server": SERVER, "dice": 0.75, "trigger": "nightly", **changes}
        return self.outbox.queue(delta() if content is None else content, **options)

    def dispatcher(self, client, **options):
        chosen = {"mark": "a", "patience": Patience(), "draw": lambda: 0.0, **options}
        return Dispatcher(self.outbox, client, chosen.pop("server", SERVER), **chosen)

    def only(self):
        [entry] = self.outbox.entries()
        return entry

    def files(self):
        return sorted(path.name for path in (self.folder / "files").iterdir())

    def events(self):
        return [(record["event"], record.get("outcome")) for record in self.outbox.audit.records()]
