"""The operating system's keyring: where a secret survives that no file shows.

Terms: a *keychain* keeps a text under a name, for one user of one machine (Windows Credential Manager, macOS
Keychain, Secret Service, KWallet).

Invariants: a backend that keeps nothing (`fail`, `null`) or keeps it in clear (priority below 1) is none; whatever a
backend raises becomes a StorageError without its text, which may hold the secret.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import keyring
from keyring.backend import KeyringBackend

from dafne_dante.errors import StorageError

__all__ = ["CASE_STORE", "FEDERATION", "Keychain", "SystemKeychain", "system_keychain"]

CASE_STORE = "dafne-dante case store"
FEDERATION = "dafne-dante federation"
"""What an entry belongs to: the key of the case store; the key for a server, under its address."""
_RECOMMENDED = 1  # keyring's own rule: backends below it are not meant for secrets
_Answer = TypeVar("_Answer")


class Keychain(Protocol):
    """What we ask of a keyring; every method raises StorageError when it refuses."""

    def get(self, name: str) -> str | None:
        """The text under the name, None when there is none."""

    def put(self, name: str, text: str) -> None:
        """Keep the text under the name."""

    def remove(self, name: str) -> None:
        """Forget what is under the name."""


class SystemKeychain:
    """A keyring of this operating system; a Keychain."""

    def __init__(self, backend: KeyringBackend, service: str = CASE_STORE) -> None:
        self._backend, self._service = backend, service

    def get(self, name: str) -> str | None:
        """As Keychain.get."""
        return _ask(lambda: self._backend.get_password(self._service, name))

    def put(self, name: str, text: str) -> None:
        """As Keychain.put."""
        _ask(lambda: self._backend.set_password(self._service, name, text))

    def remove(self, name: str) -> None:
        """As Keychain.remove."""
        _ask(lambda: self._backend.delete_password(self._service, name))


def system_keychain(service: str = CASE_STORE) -> Keychain | None:
    """The keyring of this machine for entries of a service; None when it has none that is fit for secrets.

    Raises:
        StorageError: looking for one failed.
    """
    backend = _ask(keyring.get_keyring)
    fit = _ask(lambda: backend.priority >= _RECOMMENDED)
    return SystemKeychain(backend, service) if fit else None


def _ask(question: Callable[[], _Answer]) -> _Answer:
    """The answer of a backend. Each raises errors of its own kind (D-Bus, COM), so a future holds them as values."""
    with ThreadPoolExecutor(max_workers=1) as asked:
        answer = asked.submit(question)
        error = answer.exception()
    if error is not None:
        raise StorageError(
            f"expected the operating system's keyring to answer, found it refused ({type(error).__name__}); "
            "log in or unlock it"
        )
    return answer.result()
