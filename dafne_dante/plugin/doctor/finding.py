"""One thing that was looked at: how it is, in words, and what to do where it is not well."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "fault", "good", "warning"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, and how it is: good, a warning (it works, but), or a fault (it does not)."""

    name: str
    state: Literal["good", "warning", "fault"]
    found: str
    advice: str = ""


def good(name: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(name, "good", found)


def warning(name: str, found: str, advice: str) -> Finding:
    """It works, but a person should know."""
    return Finding(name, "warning", found, advice)


def fault(name: str, found: str, advice: str) -> Finding:
    """Something does not work until somebody acts."""
    return Finding(name, "fault", found, advice)
