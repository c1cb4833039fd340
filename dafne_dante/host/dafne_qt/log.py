"""What the plugin has to say beside its windows: a line in Dafne's log, which Dafne shows to the person."""

import sys

from dafne_dante.host.dafne_qt.words import LOG

__all__ = ["say_to_log"]


def say_to_log(told: str) -> None:
    """One sentence; from any thread."""
    print(LOG.format(told=told), file=sys.stderr)
