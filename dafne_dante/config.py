"""Settings: frozen, read from one TOML file and the environment, handed in from outside.

Terms: the configuration folder holds `settings.toml`, the site's signing key and the list of trusted keys. It is
`DAFNE_DANTE_CONFIG` where that is set, else the platform's folder for user configuration.

The site's folder may hold a `settings.toml`, too, which whoever runs the machine writes: DAFNE_DANTE_SITE_CONFIG, else
the platform's folder for everybody's configuration.

Invariants: command line before environment before the site's file before the user's; every fault of all of them is
reported at once; the API key is never part of a message or a log; the settings file is readable by its owner only
(0600).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import tomli_w

from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.settings_document import as_document, both_labels, checked, faults_of, flatten, read_document
from dafne_dante.settings_sections import (
    OWN_SECTIONS,
    SECTIONS,
    AnnotationSettings,
    NightlySettings,
    Settings,
    WorkerSettings,
)
from dafne_dante.settings_values import fault_of, is_key_text, is_proxy_address, parse_text

__all__ = [
    "KEYRING",
    "OWN_SECTIONS",
    "SECTIONS",
    "SETTINGS_FILE",
    "AnnotationSettings",
    "NightlySettings",
    "Settings",
    "SettingsLook",
    "WorkerSettings",
    "configuration_folder",
    "faults_of",
    "is_key_text",
    "is_proxy_address",
    "load_settings",
    "look_at_settings",
    "site_folder",
    "write_settings",
]

SETTINGS_FILE = "settings.toml"
KEYRING = "keyring"
"""In place of a key: it is in the operating system's keyring."""
_NAMES = frozenset(name for names in SECTIONS.values() for name in names)
_SITE, _ENVIRONMENT = "site", "environment"


def configuration_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of settings and keys; nothing is created."""
    return Path(environment.get("DAFNE_DANTE_CONFIG") or platformdirs.user_config_dir("dafne-dante"))


def site_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of the settings that hold for everybody at this machine; nothing is created."""
    return Path(environment.get("DAFNE_DANTE_SITE_CONFIG") or platformdirs.site_config_dir("dafne-dante"))


def load_settings(folder: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read `settings.toml` of the folder, let that of the site replace it, then `DAFNE_DANTE_<NAME>` for any setting.

    In the environment a list or a table is written as in TOML. The names of labels of both files hold together. A
    keyring that is locked, or has no key for the server, is no fault of the settings: all works that needs no server,
    and `key_fault` says what to do.

    Raises:
        SettingsError: a file is not TOML, or holds unknown or malformed settings; all are listed in one message.
    """
    look = look_at_settings(folder, environment)
    if look.faults:
        raise SettingsError(f"{SETTINGS_FILE} or the environment: " + "; ".join(look.faults))
    return look.settings


@dataclass(frozen=True)
class SettingsLook:
    """What there is of settings, sound or not.

    Attributes:
        settings: with whatever is sound; the rest is as it is by default.
        faults: what is wrong, in words; nothing when they can be used.
        faulty: names of settings whose value is wrong.
        replaced: name to "site" or "environment", of what the folder's own file does not decide.
    """

    settings: Settings
    faults: tuple[str, ...] = ()
    faulty: tuple[str, ...] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)


def look_at_settings(folder: Path | None = None, environment: Mapping[str, str] = os.environ) -> SettingsLook:
    """Read everything as `load_settings` does, and tell what is wrong instead of refusing; StorageError as there."""
    folder = folder or configuration_folder(environment)
    found: dict[str, Any] = {}
    faults: list[str] = []
    replaced: dict[str, str] = {}
    for place in dict.fromkeys((folder, site_folder(environment))):
        path = place / SETTINGS_FILE
        if path.is_file():
            document, fault = read_document(path)
            faults += [fault] if fault else []
            flat = flatten(document)
            flat["labels"] = both_labels(found.get("labels"), flat.get("labels"))
            given = {name: value for name, value in flat.items() if value is not None}
            # The labels of both files hold together.
            replaced |= dict.fromkeys((name for name in given if name != "labels"), _SITE) if place != folder else {}
            found |= given
    for name in (name for names in SECTIONS.values() for name in names):
        if value := environment.get(f"DAFNE_DANTE_{name.upper()}"):
            found[name], replaced[name] = parse_text(name, value), _ENVIRONMENT
    values, more = checked(found)
    if values.get("api_key") == KEYRING:
        values["api_key"], values["key_fault"] = _kept_key(values.get("server", ""))
    faulty = tuple(name for name, value in found.items() if name in _NAMES and fault_of(name, value))
    return SettingsLook(Settings(folder=folder, **values), tuple(faults + more), faulty, replaced)


def write_settings(settings: Settings) -> Path:
    """Write `settings.toml` into the settings' folder, readable by its owner only, and return its path."""
    make_folder(settings.folder)
    path = settings.folder / SETTINGS_FILE
    write_atomically(path, tomli_w.dumps(as_document(settings)).encode(), mode=0o600)
    return path


def _kept_key(server: str) -> tuple[str, str]:
    """The server's key in the keyring, and why it cannot be had."""
    from dafne_dante.keychain import FEDERATION, system_keychain  # noqa: PLC0415 (a keyring takes time to be found)

    if not server:
        return "", ""
    try:
        keychain = system_keychain(FEDERATION)
        kept = keychain.get(server) if keychain else None
    except StorageError as error:
        return "", f"{error}, or enter the server's key again"
    if kept and not fault_of("api_key", kept):
        return kept, ""
    what = "no such key in it" if keychain else "no keyring"
    return "", f"expected the server's key in the operating system's keyring, found {what}; enter the key again"
