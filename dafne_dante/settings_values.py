"""What a value of a setting may be: its faults in words, and the value as its attribute has it.

Terms: a setting is known by its bare name (`timeout_s`), which no two sections share.

Invariants: pure functions; a fault says what is expected and never quotes the value, which may be a secret.
"""

import base64
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser under its name before Python 3.11
    import tomli as tomllib

__all__ = ["fault_of", "is_key_text", "is_proxy_address", "parse_text", "site_names", "typed"]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_NUMBERS = {
    "timeout_s": (0.1, 3600.0),
    "retries": (0, 20),
    "retry_s": (0.0, 86400.0),
    "chunk_mib": (1, 1024),
    "clip_norm": (0.0, 1e6),
    "noise_multiplier": (0.0, 1e6),
    "cache_models": (0, 1000),
    "cache_gib": (0.0, 1e4),
    "max_norm_ratio": (1e-3, 100.0),
    "dice_margin": (0.0, 1.0),
    "keep_cases": (1, 1e6),
    "keep_days": (1.0, 36500.0),
    "keep_gib": (0.1, 1e5),
    "keep_prepared_gib": (0.0, 1e5),
    "max_minutes": (1.0, 1440.0),
    "threads": (0, 1024),
    "memory_gib": (0.0, 1e5),
    "after_save_s": (0.0, 86400.0),
    "after_slices": (1, 1e6),
    "job_minutes": (0.0, 1440.0),
}
_CHOICES = {
    "empty_slices": ("auto", "background", "unknown"),
    "missing_labels": ("refuse", "absent"),
    "automatic_method": ("auto", "lora", "gradual-unfreezing"),
    "merge_rule": ("trimmed", "median"),
}
_KEYS = ("operator_key", "seal_key")
_SWITCHES = (
    *("allow_full_model", "only_on_power", "only_when_idle", "automatic_send"),
    *("after_save", "every_night"),
)
_TIMES = ("start", "stop")
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_WHOLE = ("keep_cases", "retries", "chunk_mib", "cache_models", "threads", "after_slices")
_LISTS = ("folders", "ignore", "run_model_code")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_proxy_address(value: str) -> bool:
    """Whether the text is a `proxy` setting: "", "none", or http(s)://[user:password@]host[:port] and no more."""
    if value in ("", "none"):
        return True
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    more = parts.path.strip("/") or parts.query or parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not more and value.isprintable()


def is_key_text(value: str) -> bool:
    """Whether the text is "" or the base64 of 32 bytes, in the one form that base64 has for them."""
    try:
        raw = base64.b64decode(value, validate=True)
    except ValueError:
        return False
    return not value or (len(raw) == 32 and base64.b64encode(raw).decode("ascii") == value)


def fault_of(name: str, value: Any) -> str:  # noqa: PLR0911, PLR0912 (one line a kind of setting)
    """What is wrong with one setting, in words; empty when nothing is. Never quotes the API key."""
    if name in _NUMBERS:
        return _number_fault(name, value)
    if name in _LISTS:
        if not _is_list_of_texts(value):
            return f"{name} must be a list of texts in quotes"
        if name == "run_model_code" and not all(_SHA256.fullmatch(text) for text in value):
            return "run_model_code must be a list of SHA-256 sums, each of 64 digits 0-9 and a-f"
    elif name == "labels":
        if not isinstance(value, dict) or not all(_is_list_of_texts(names) for names in value.values()):
            return 'annotations.labels must give each label a list of names: liver = ["hepar", "Leber"]'
    elif name in _SWITCHES:
        if not isinstance(value, bool):
            return f"{name} must be true or false"
    elif name in _CHOICES:
        if value not in _CHOICES[name]:
            return f"{name} must be one of {', '.join(_CHOICES[name])}"
    elif not isinstance(value, str):
        return f"{name} must be a text in quotes"
    elif name in _TIMES and not _TIME.fullmatch(value):
        return f"nightly.{name} must be a time of day as HH:MM"
    elif name in _KEYS and not is_key_text(value):
        return f"{name} must be a public key as base64 of 32 bytes, as `dafne-dante keys` prints it"
    elif name == "server" and value and not _is_acceptable_url(value):
        return "server must be an https:// address (plain http:// only on this machine)"
    elif name == "proxy" and not is_proxy_address(value):
        return 'proxy must be "", "none" or an address such as http://proxy.example:8080'
    return ""


def _number_fault(name: str, value: Any) -> str:
    low, high = _NUMBERS[name]
    whole = name in _WHOLE
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if is_number and not (whole and value != int(value)):
        return ""
    return f"{name} must be a {'whole ' if whole else ''}number from {low:g} to {high:g}"


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)


def typed(name: str, value: Any) -> Any:
    """A value without faults, as its attribute has it; `~` stands for the home folder."""
    if name in _NUMBERS:
        return int(value) if name in _WHOLE else float(value)
    if name == "folders":
        return tuple(Path(text).expanduser() for text in value)
    if name in ("store", "ca_bundle"):
        return Path(value).expanduser() if value else None
    if name == "labels":
        return {label: tuple(names) for label, names in value.items()}
    return tuple(value) if name in _LISTS else value


def _is_acceptable_url(value: str) -> bool:
    """The key travels in the body of every call, so plain HTTP is for loopback only."""
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and (
            parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
        )
    except ValueError:
        return False


def parse_text(name: str, text: str) -> Any:
    """A setting as the environment or a command line has it; text that is not of its kind stays text, to be told."""
    if name in _SWITCHES:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if name == "labels" or name in _LISTS:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            return text
    try:
        return float(text) if name in _NUMBERS else text
    except ValueError:
        return text


def site_names(section: Any) -> dict[str, list[str]] | None:
    """The section `[labels]`, a site's name to the model's label, as label to names; None where it is anything else."""
    if not isinstance(section, Mapping):
        return None
    found: dict[str, list[str]] = {}
    for name, label in section.items():
        if not isinstance(label, str) or not label.strip() or not name.strip():
            return None
        found.setdefault(label, []).append(name)
    return found
