"""Changes a few settings of a file and leaves its comments, its order and all else as they are.

Invariants: what would be no valid file is refused before anything is written; the server's key goes into the operating
system's keyring where there is one that is fit for secrets, and the file says `keyring` in its place.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from dafne_dante.config import KEYRING, SECTIONS, SETTINGS_FILE, faults_of
from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.keychain import FEDERATION, Keychain, system_keychain
from dafne_dante.settings_template import settings_template

__all__ = ["change_settings"]

_MAX_BYTES = 1 << 20


def change_settings(
    folder: Path,
    changes: Mapping[str, Any],
    *,
    find_keychain: Callable[[], Keychain | None] = lambda: system_keychain(FEDERATION),
) -> str:
    """Set settings by their bare names in `settings.toml` of the folder, which is made where there is none.

    Args:
        changes: plain values; of `api_key` the key itself, "" for none.

    Returns:
        Where a key went, or that one is needed for the new server, in one sentence for a person; "" for neither.

    Raises:
        SettingsError: the file is not TOML, or what would come of it is not valid; all faults in one message.
        StorageError: the disk or the keyring refuses.
    """
    path = make_folder(folder) / SETTINGS_FILE
    document = _read(path)
    for name, value in changes.items():
        section = next(section for section, names in SECTIONS.items() if name in names)
        if section not in document:
            document[section] = tomlkit.table()
        document[section][name] = value
    if faults := faults_of(document.unwrap()):
        raise SettingsError("; ".join(faults))
    told = ""
    if changes.get("api_key"):
        told = _keep_key(document, str(changes["api_key"]), find_keychain)
    elif "server" in changes:
        told = _needed_key(document, find_keychain)
    write_atomically(path, tomlkit.dumps(document).encode(), mode=0o600)
    return told


def _read(path: Path) -> tomlkit.TOMLDocument:
    text = read_bounded(path, max_bytes=_MAX_BYTES).decode("utf-8") if path.is_file() else settings_template()
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:  # its message may quote the line that holds the key
        raise SettingsError(f"expected {SETTINGS_FILE} to be TOML, found that it is not; correct it by hand") from error


def _keep_key(document: tomlkit.TOMLDocument, key: str, find_keychain: Callable[[], Keychain | None]) -> str:
    federation: Any = document["federation"]
    keychain, server = find_keychain(), _server(document)
    if keychain is None or not server:
        return f"this machine has no keyring that is fit for secrets, so the key is in {SETTINGS_FILE}, readable by you"
    keychain.put(server, key)
    federation["api_key"] = KEYRING
    return "the key is in the operating system's keyring"


def _needed_key(document: tomlkit.TOMLDocument, find_keychain: Callable[[], Keychain | None]) -> str:
    """What a person must do whose key is in the keyring, under another server's address."""
    federation: Any = document["federation"]
    if federation.get("api_key") != KEYRING or not _server(document):
        return ""
    try:
        keychain = find_keychain()
        known = keychain is not None and keychain.get(_server(document))
    except StorageError as error:
        return str(error)
    return (
        "" if known else "the operating system's keyring has no key for this server; enter the one that belongs to it"
    )


def _server(document: tomlkit.TOMLDocument) -> str:
    """The address under which the keyring knows the server, as `config` reads it; "" for none."""
    federation: Any = document["federation"]
    server = str(federation.get("server", ""))
    return server if not server or server.endswith("/") else f"{server}/"
