"""The document of a settings file: from TOML to values and faults, and back.

Terms: *flat* is one level of names, without sections; what is unknown keeps a dotted name there, so that it is told.

Invariants: every fault is told at once, none quotes a value; what is sound comes through beside what is not.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dafne_dante.durable import read_bounded
from dafne_dante.settings_sections import OWN_SECTIONS, SECTIONS, Settings
from dafne_dante.settings_values import fault_of, site_names, typed

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser under its name before Python 3.11
    import tomli as tomllib

__all__ = ["as_document", "both_labels", "checked", "faults_of", "flatten", "read_document"]

_MAX_BYTES = 256 * 1024


def read_document(path: Path) -> tuple[dict[str, Any], str]:
    """The document, and what is wrong with it, in words; StorageError where it cannot be read."""
    try:
        document: dict[str, Any] = tomllib.loads(read_bounded(path, max_bytes=_MAX_BYTES).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        # The parser's own message may quote the line that holds the key.
        line = re.search(r"line (\d+)", str(error))
        where = f"line {line.group(1)}" if line else "its text"
        return {}, f"expected {path.name} to be TOML, found a fault at {where}; correct it"
    return document, ""


def both_labels(one: Any, other: Any) -> Any:
    """Two tables of label to names as one; what is no such table comes back as it is, to be told."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one if other is None else other
    lists = all(isinstance(names, list) for names in (*one.values(), *other.values()))
    return {name: [*one.get(name, ()), *other.get(name, ())] for name in (one | other)} if lists else other


def flatten(document: dict[str, Any]) -> dict[str, Any]:
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
        flat["labels"] = both_labels(names or None, flat.get("labels"))
    return flat


def checked(found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What is sound of flat values, as `Settings` takes it but for the folder, and what is wrong with the rest."""
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


def faults_of(document: dict[str, Any]) -> list[str]:
    """What is wrong with the document of a settings file, in words; nothing when it can be used."""
    return checked({name: value for name, value in flatten(document).items() if value is not None})[1]


def as_document(settings: Settings) -> dict[str, Any]:
    """The settings as TOML knows them; what is None is left out."""
    return {
        section: {
            name: _plain(value)
            for name in names
            if (value := getattr(getattr(settings, section) if section in OWN_SECTIONS else settings, name)) is not None
        }
        for section, names in SECTIONS.items()
    }


def _plain(value: Any) -> Any:
    """A value as TOML knows it."""
    if isinstance(value, Mapping):
        return {name: list(names) for name, names in value.items()}
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path) else value
