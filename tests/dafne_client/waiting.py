"""Letting Qt work until something has happened."""

import time


def until(application, done):
    """Let Qt work until `done()`, for ten seconds at most."""
    end = time.monotonic() + 10
    while not done() and time.monotonic() < end:
        application.processEvents()
        time.sleep(0.005)
    assert done()
