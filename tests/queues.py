"""A queue of jobs with a clock and a list of the living that a test sets."""

from outboxes import Clock

from dafne_dante.plugin.jobs import JobQueue

__all__ = ["OTHER", "TYPE", "WORKER", "FakeCensus", "Jobs"]

WORKER, OTHER = "a 1 1 0", "b 2 2 0"
TYPE = "Thigh"


class FakeCensus:
    """Nobody is gone but those that a test says."""

    def __init__(self):
        self.gone = set()

    def is_gone(self, holder, silent_s):
        return holder in self.gone


class Jobs:
    """A site's jobs in a folder, as one process after the other would open them."""

    def __init__(self, folder):
        self.folder, self.clock, self.census = folder, Clock(), FakeCensus()

    @property
    def queue(self):
        return JobQueue(self.folder, clock=self.clock, census=self.census)

    def running(self, model_type=TYPE):
        """A job that the worker has claimed."""
        return self.queue.claim(self.queue.add(model_type, "button").job_id, WORKER)
