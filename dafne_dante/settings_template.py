"""A settings file to begin with: every setting with its default and what it means, all of it as comments.

Invariants: it is made from the dataclasses of `config` and their docstrings, so that it is never older than they are;
a file that is there is never replaced.
"""

import inspect
import os
import re
import textwrap
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import tomli_w

from dafne_dante.config import OWN_SECTIONS, SECTIONS, SETTINGS_FILE, Settings
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import SettingsError, StorageError

__all__ = ["settings_template", "write_template"]

_WIDTH = 100
_HEAD = """Settings of dafne-dante. Take "# " away from a line with "=" to change a setting.

What holds, the first that says something: `dafne-dante --set NAME=VALUE`, the environment (DAFNE_DANTE_NAME), the \
settings file of the site, this file."""
_LABELS = """What this site calls a structure, then what the model calls it; several names may stand for one label. \
`dafne-dante labels suggest --data FOLDER --model FILE.model` prints this section."""


def settings_template() -> str:
    """The text of the file; it is valid TOML, and so is what comes of it when settings are put into force."""
    lines = _comment(_HEAD)
    for section, names in SECTIONS.items():
        kind = OWN_SECTIONS.get(section, Settings)
        known = {item.name: item for item in fields(kind)}
        explained = _explained(kind)
        lines += ["", f"[{section}]"]
        lines += _comment((inspect.getdoc(kind) or "").split("\n\n")[0]) if section in OWN_SECTIONS else []
        for name in names:
            setting = tomli_w.dumps({name: _default(known[name])}).strip() if name != "labels" else "labels = {}"
            lines += ["", *_comment(explained.get(name, "")), f"# {setting}"]
    return "\n".join([*lines, "", "[labels]", *_comment(_LABELS), '# "Vastus lat L" = "vastus lateralis L"', ""])


def write_template(folder: Path, *, mode: int = 0o600) -> Path:
    """Write the template as `settings.toml` into the folder, by default readable by its owner only.

    Raises:
        SettingsError: there is one already; it stays as it is.
        StorageError: the disk refuses.
    """
    path = make_folder(folder) / SETTINGS_FILE
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))  # of two that begin at once, one gets it
    except FileExistsError as error:
        raise SettingsError(f"expected no {SETTINGS_FILE} yet, found one; it was left as it is") from error
    except OSError as error:
        raise StorageError(f"cannot write {SETTINGS_FILE}: {error.strerror or type(error).__name__}") from error
    write_atomically(path, settings_template().encode(), mode=mode)
    return path


def _default(item: "Field[Any]") -> Any:
    value = item.default_factory() if item.default_factory is not MISSING else item.default
    return list(value) if isinstance(value, tuple) else "" if value is None else value


def _explained(kind: type) -> dict[str, str]:
    """What the docstring says of each attribute; several may share an entry."""
    found: dict[str, str] = {}
    text = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    for names, words in re.findall(r"^    ([a-z_, ]+): ((?:.|\n {8})+)$", text, flags=re.MULTILINE):
        for name in names.split(", "):
            found[name] = (f"{names}: " if "," in names else "") + re.sub(r"\bNone\b", '""', " ".join(words.split()))
    return found


def _comment(text: str) -> list[str]:
    return [f"# {line}".rstrip() for part in text.splitlines() for line in textwrap.wrap(part, _WIDTH) or [""]]
