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
        address: calls of one address, before anybody looks at the key.
        wrong_key_tokens: what an answer 401 costs the address besides, since a key takes tens of milliseconds to check.
        user: calls of one user.
        finish_s: whoever is being served when the server is stopped has this long.
        log_bytes, log_files: size of a file of the log, and how many older ones are kept.
    """

    file_bytes: int = 2 * 1024**3
    idle_s: float = 60.0
    slowest_bytes_per_s: float = 1024.0
    connections: int = 256
    address: Rate = _ADDRESS
    wrong_key_tokens: float = 20
    user: Rate = _USER
    finish_s: int = 20
    log_bytes: int = 16 * 1024**2
    log_files: int = 8
