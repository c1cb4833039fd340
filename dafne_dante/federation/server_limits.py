"""What the embedded server lets its callers use.

Invariants: every bound has a value; those that are given here fit a federation of a hundred hospitals behind a few
addresses. Nothing here needs the server's packages.
"""

from dataclasses import dataclass

from dafne_dante.federation.rate_limit import Rate

__all__ = ["ServerLimits"]


_ADDRESS = Rate(1200, 20)
_USER = Rate(600, 10)


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of one server.

    Attributes:
        file_bytes: longest file, in one piece or many.
        idle_s: a body that stands still for longer is given up, and one that comes at less than `slowest_bytes_per_s`
            after the first `idle_s`.
        connections: open at once; beyond, callers are told 503.
        head_s: a connection on which no call is under way is closed when the head of one has not come whole by then.
        at_once: calls of one address that are under way at the same time.
        unknown_s: for the body of a call until its key is found good; then it has the time that its length takes.
        address: calls of one address, before anybody looks at the key.
        wrong_key_tokens: what an answer 401 costs the address besides, since a key takes tens of milliseconds to check.
        user: calls of one user.
        finish_s: whoever is being served when the server is stopped has this long.
        log_bytes, log_files: size of a file of the log, and how many older ones are kept.
        anonymous_log_files: older ones of the other log, of calls without a good key.
        pending_bytes, pending_files: what one user may have waiting to be merged, and in parts on its way in.
        reserve_bytes: free space on the server's disk that no upload may use.
    """

    file_bytes: int = 2 * 1024**3
    idle_s: float = 60.0
    slowest_bytes_per_s: float = 1024.0
    connections: int = 256
    head_s: float = 10.0
    at_once: int = 64
    unknown_s: float = 20.0
    address: Rate = _ADDRESS
    wrong_key_tokens: float = 20
    user: Rate = _USER
    finish_s: int = 20
    log_bytes: int = 16 * 1024**2
    log_files: int = 8
    anonymous_log_files: int = 1
    pending_bytes: int = 8 * 1024**3
    pending_files: int = 5000
    reserve_bytes: int = 1024**3
