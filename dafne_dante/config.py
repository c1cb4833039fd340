"""Settings: frozen, read from one TOML file and the environment, handed in from outside.

Terms: the configuration folder holds `settings.toml`, the site's signing key and the list of trusted keys. It is
`DAFNE_DANTE_CONFIG` where that is set, else the platform's folder for user configuration.

The site's folder may hold a `settings.toml`, too, which whoever runs the machine writes: DAFNE_DANTE_SITE_CONFIG, else
the platform's folder for everybody's configuration.

Invariants: command line before environment before the site's file before the user's; every fault of all of them is
reported at once; the API key is never part of a representation, a message or a log; the settings file is readable by
its owner only (0600).
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs
import tomli_w

from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.settings_values import fault_of, is_key_text, is_proxy_address, parse_text, site_names, typed

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser under its name before Python 3.11
    import tomli as tomllib

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
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class AnnotationSettings:
    """How a site's labelled studies are found, read and kept.

    Attributes:
        folders: watched for new studies.
        store: the folder of the sealed case store; None for the platform's own place.
        labels: label of a model to further names that this site has for it; the section `[labels]` of the file, from
            a site's name to the model's label, says the same the other way round.
        ignore: names of structures that are left out without a word.
        empty_slices: what a slice without any mask means: "background", "unknown", or "auto" for what is usual in
            the kind of source (datasets, DICOM segmentations and structure sets are labelled throughout; what Dafne
            writes is not).
        missing_labels: what a label means that a study has no name for: "refuse" the study, or it is "absent" there.
        keep_cases, keep_days, keep_gib: the store drops its oldest cases beyond these.
        keep_prepared_gib: disk, beside that, for kept cases in the form that training needs; 0 for none.
    """

    folders: tuple[Path, ...] = ()
    store: Path | None = None
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    empty_slices: str = "auto"
    missing_labels: str = "refuse"
    keep_cases: int = 1000
    keep_days: float = 3650.0
    keep_gib: float = 50.0
    keep_prepared_gib: float = 20.0


@dataclass(frozen=True)
class NightlySettings:
    """When `dafne-dante nightly` may work.

    Attributes:
        start, stop: local time as HH:MM; a window that ends before it begins goes over midnight, and one of no length
            is the whole day.
        max_minutes: of one run, over all models.
        only_on_power: not on a battery.
        only_when_idle: not while somebody works at the machine.
        every_night: false leaves the nights alone; `nightly --now` works all the same.
    """

    start: str = "20:00"
    stop: str = "06:00"
    max_minutes: float = 240.0
    only_on_power: bool = True
    only_when_idle: bool = True
    every_night: bool = True


@dataclass(frozen=True)
class WorkerSettings:
    """What a job in the background may take.

    Attributes:
        threads: of the processor; 0 for half of the cores.
        memory_gib: 0 for three quarters of the memory.
        after_save_s: without another save before a job for corrections begins.
        after_slices: annotated since the model's last job, before corrections make one.
        job_minutes: that training may take where auto chooses, after a save and by the button; 0 for no limit. A night
            has its own (max_minutes), which its models share.
        automatic_method: of adaptation, of jobs that nobody asked for just now: auto, lora or gradual-unfreezing.
        automatic_send: whether such a job sends its update to the server; false keeps it at the site.
        after_save: whether what is saved in a viewer asks for a job; it is kept in any case.
    """

    threads: int = 0
    memory_gib: float = 0.0
    after_save_s: float = 120.0
    after_slices: int = 2
    job_minutes: float = 0.0
    automatic_method: str = "auto"
    automatic_send: bool = True
    after_save: bool = True


@dataclass(frozen=True)
class Settings:
    """What a site or an operator has set.

    Attributes:
        folder: the configuration folder.
        server: base URL of the federation server, ending with "/"; empty when there is none.
        api_key: the key for that server; empty when there is none; "keyring" in a file for the one that the operating
            system's keyring has under the server's address. Never shown.
        timeout_s: seconds to wait for a connection or for the next bytes of an answer.
        ca_bundle: PEM file of the certificates to trust instead of the usual ones, for a network whose proxy opens TLS;
            None for REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE where set, else the usual ones.
        proxy: http://[user:password@]host:port of the proxy; "" for what the environment and the system say, "none"
            for no proxy. Never shown.
        retries: how often a call is repeated after a failure that may pass.
        retry_s: seconds that a call and its repetitions may take before it is given up.
        chunk_mib: an upload goes in parts of at most this length.
        operator_key: base64 of the public key by which global models must be signed; "" to pin the first one seen.
        seal_key: base64 of the operator's public seal key; with it, updates leave sealed to it, or not at all.
        allow_full_model: whether an update for a type that takes no deltas may leave as a full model.
        clip_norm: the longest (L2) that an update may be that leaves; 0 for as long as it is. See `delta.noise`.
        noise_multiplier: of the clip norm, the standard deviation of noise in an update that leaves; 0 for none.
        cache_models, cache_gib: downloaded global models that are kept; the least recently used go first.
        max_norm_ratio: an update longer than this share of its base's length is refused by the operator.
        dice_margin: how far the Dice of a label may fall on the operator's cases before a merge backs off.
        merge_rule: of the numbers of five sites or more an operator takes the trimmed mean ("trimmed") or the "median".
        run_model_code: SHA-256 (64 hexadecimal digits) of the model files whose own code may be run, in a child process
            without network and files; none unless the site says so.
        annotations: how labelled studies are found, read and kept.
        nightly: when jobs run by themselves.
        worker: what a job may take of the machine.
        key_fault: why the key is not here that should be in the keyring, and what to do, in words; "" when it is, or
            none should be. No setting: it is found when settings are read.
    """

    folder: Path
    server: str = ""
    api_key: str = field(default="", repr=False)
    timeout_s: float = 60.0
    ca_bundle: Path | None = None
    proxy: str = field(default="", repr=False)
    retries: int = 3
    retry_s: float = 600.0
    chunk_mib: int = 50
    operator_key: str = ""
    seal_key: str = ""
    allow_full_model: bool = False
    clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    cache_models: int = 10
    cache_gib: float = 5.0
    max_norm_ratio: float = 1.0
    dice_margin: float = 0.02
    merge_rule: str = "trimmed"
    run_model_code: tuple[str, ...] = ()
    annotations: AnnotationSettings = field(default_factory=AnnotationSettings)
    nightly: NightlySettings = field(default_factory=NightlySettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    key_fault: str = ""


OWN_SECTIONS: Mapping[str, type[Any]] = {
    "annotations": AnnotationSettings, "nightly": NightlySettings, "worker": WorkerSettings
}  # fmt: skip
"""Sections that are an attribute of their own."""
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "federation": (
        *("server", "api_key", "timeout_s", "ca_bundle", "proxy", "retries", "retry_s"),
        *("chunk_mib", "operator_key", "seal_key", "allow_full_model", "clip_norm", "noise_multiplier"),
        *("cache_models", "cache_gib"),
    ),
    "operator": ("max_norm_ratio", "dice_margin", "merge_rule"),
    "trust": ("run_model_code",),
    **{section: tuple(item.name for item in fields(kind)) for section, kind in OWN_SECTIONS.items()},
}
"""Sections of the file, each with its settings; no two share a name."""
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
            document, fault = _parse(path)
            faults += [fault] if fault else []
            flat = _flatten(document)
            flat["labels"] = _both_labels(found.get("labels"), flat.get("labels"))
            given = {name: value for name, value in flat.items() if value is not None}
            # The labels of both files hold together.
            replaced |= dict.fromkeys((name for name in given if name != "labels"), _SITE) if place != folder else {}
            found |= given
    for name in (name for names in SECTIONS.values() for name in names):
        if value := environment.get(f"DAFNE_DANTE_{name.upper()}"):
            found[name], replaced[name] = parse_text(name, value), _ENVIRONMENT
    values, more = _checked(found)
    if values.get("api_key") == KEYRING:
        values["api_key"], values["key_fault"] = _kept_key(values.get("server", ""))
    faulty = tuple(name for name, value in found.items() if name in _NAMES and fault_of(name, value))
    return SettingsLook(Settings(folder=folder, **values), tuple(faults + more), faulty, replaced)


def faults_of(document: dict[str, Any]) -> list[str]:
    """What is wrong with the document of a settings file, in words; nothing when it can be used."""
    return _checked({name: value for name, value in _flatten(document).items() if value is not None})[1]


def write_settings(settings: Settings) -> Path:
    """Write `settings.toml` into the settings' folder, readable by its owner only, and return its path."""
    make_folder(settings.folder)
    document = {
        section: {
            name: _plain(value)
            for name in names
            if (value := getattr(getattr(settings, section) if section in OWN_SECTIONS else settings, name)) is not None
        }
        for section, names in SECTIONS.items()
    }
    path = settings.folder / SETTINGS_FILE
    write_atomically(path, tomli_w.dumps(document).encode(), mode=0o600)
    return path


def _parse(path: Path) -> tuple[dict[str, Any], str]:
    """The document, and what is wrong with it."""
    try:
        document: dict[str, Any] = tomllib.loads(read_bounded(path, max_bytes=_MAX_BYTES).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        # The parser's own message may quote the line that holds the key.
        line = re.search(r"line (\d+)", str(error))
        where = f"line {line.group(1)}" if line else "its text"
        return {}, f"expected {SETTINGS_FILE} to be TOML, found a fault at {where}; correct it"
    return document, ""


def _both_labels(one: Any, other: Any) -> Any:
    """Two tables of label to names as one; what is no such table comes back as it is, to be told."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one if other is None else other
    lists = all(isinstance(names, list) for names in (*one.values(), *other.values()))
    return {name: [*one.get(name, ()), *other.get(name, ())] for name in (one | other)} if lists else other


def _flatten(document: dict[str, Any]) -> dict[str, Any]:
    """One level of names; what is unknown keeps a dotted name, so that it is reported."""
    flat: dict[str, Any] = {}
    for section, content in document.items():
        if section == "labels":
            flat[".labels"] = content
        elif isinstance(content, dict):
            for name, value in content.items():
                flat[name if name in SECTIONS.get(section, ()) else f"{section}.{name}"] = value
        else:
            flat[f".{section}"] = content
    names = site_names(flat.get(".labels", {}))
    if names is not None:
        flat.pop(".labels", None)
        flat["labels"] = _both_labels(names or None, flat.get("labels"))
    return flat


def _checked(found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    known = {name for names in SECTIONS.values() for name in names}
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in found.items():
        if name == ".labels":
            faults.append(
                'labels must give each name that the site uses a label: "Vastus lat L" = "vastus lateralis L"'
            )
        elif name not in known:
            faults.append(f"unknown setting {name.lstrip('.')}")
        elif fault := fault_of(name, value):
            faults.append(fault)
        else:
            values[name] = typed(name, value)
    if values.get("noise_multiplier") and not values.get("clip_norm"):
        faults.append("noise_multiplier needs a clip_norm above 0")
    if values.get("server") and not values["server"].endswith("/"):
        values["server"] += "/"
    for section, kind in OWN_SECTIONS.items():
        own = {name: values.pop(name) for name in SECTIONS[section] if name in values}
        values |= {section: kind(**own)} if own else {}
    return values, faults


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


def _plain(value: Any) -> Any:
    """A value as TOML knows it."""
    if isinstance(value, Mapping):
        return {name: list(names) for name, names in value.items()}
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path) else value
