"""Which label of a model a name at a site stands for.

Terms
- The *labels* are a model's, in its order; a *name* is what somebody at a site called a structure.
- A *synonym* is written down by the site, in `[annotations.labels]` of its settings; an *ignored* name, too.
- A *side* is left or right; it is told by words of several languages and by single letters at the ends of a name.

Invariants
- Two spellings of one name differ in letter case, blanks, `_`, `-`, `.`, brackets and the place and wording of the
  side ("Kidney (L)", "left_kidney", "KidneyLeft"), and in nothing else: nothing is guessed from likeness. A mark
  between two digits counts: the disc T1-2 is not the vertebra T12.
- A name with a side never stands for a label with the other side or with none.
- What stands for no label is listed as unknown, never dropped in silence; a label for which there is no name is
  listed as missing.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from dafne_dante.errors import SettingsError

__all__ = ["SIDES", "LabelNames", "Resolution", "label_key", "words_of"]

SIDES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("left", "l", "lt", "li", "links", "linke", "linker", "linkes", "gauche"), "left"),
        **dict.fromkeys(("izquierdo", "izquierda", "izq", "sinistro", "sinistra", "sx"), "left"),
        **dict.fromkeys(("right", "r", "rt", "re", "rechts", "rechte", "rechter", "rechtes", "droit"), "right"),
        **dict.fromkeys(("droite", "derecho", "derecha", "destro", "destra", "dx"), "right"),
    }
)
"""A word or letter, in lower case, to the side that it tells."""
_SEPARATORS = re.compile(r"[\s_\-.,;:()\[\]{}/\\|]+|(?<=[^\W\d_A-Z])(?=[A-Z])")


def label_key(name: str) -> str:
    """What two spellings of one name have in common, with the side, if there is one, in front."""
    words = words_of(name)
    # Only the last or the first word tells the side; elsewhere an "r" may mean anything.
    for position in (-1, 0):
        if len(words) > 1 and words[position] in SIDES:
            side = SIDES[words.pop(position)]
            return f"{side} {_joined(words)}"
    return _joined(words)


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, also where a capital begins one."""
    return [word.casefold() for word in _SEPARATORS.split(unicodedata.normalize("NFKC", name)) if word]


def _joined(words: Sequence[str]) -> str:
    """The words without blanks, except between two digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", " ".join(words))


@dataclass(frozen=True)
class Resolution:
    """What the names of one study stand for.

    Attributes:
        values: name to value, 1 for the model's first label.
        unknown: names that stand for none.
        missing: labels for which there is no name.
        ignored: names that the site has told us to leave out.
    """

    values: Mapping[str, int]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class LabelNames:
    """A site's own table of names.

    Attributes:
        synonyms: label to the names that stand for it, beside its own.
        ignored: names that are left out without a word.

    Raises:
        SettingsError: one name stands for two labels, or is ignored as well.
    """

    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        owners: dict[str, str] = {label_key(name): "what is ignored" for name in self.ignored}
        for label, names in self.synonyms.items():
            for name in names:
                other = owners.setdefault(label_key(name), label)
                if label_key(other) != label_key(label):
                    raise SettingsError(
                        f"labels: expected {name!r} to stand for one label, found {other} and {label}; remove one"
                    )

    def canonical(self, name: str) -> str:
        """The label that the table gives for a name; the name itself, trimmed, where it gives none."""
        key = label_key(name)
        for label, names in self.synonyms.items():
            if key == label_key(label) or key in map(label_key, names):
                return label
        return unicodedata.normalize("NFC", name.strip())

    def is_ignored(self, name: str) -> bool:
        """Whether the site has told us to leave the name out."""
        return label_key(name) in map(label_key, self.ignored)

    def resolve(self, names: Iterable[str], labels: Sequence[str]) -> Resolution:
        """What each name stands for among the labels."""
        positions = {label_key(label): value for value, label in enumerate(labels, start=1)}
        values: dict[str, int] = {}
        unknown: list[str] = []
        ignored: list[str] = []
        for name in names:
            # A name that is a label's own wins over the table: the model's word is the first.
            value = positions.get(label_key(name)) or positions.get(label_key(self.canonical(name)))
            if self.is_ignored(name):
                ignored.append(name)
            elif value is None:
                unknown.append(name)
            else:
                values[name] = value
        given = set(values.values())
        missing = tuple(label for value, label in enumerate(labels, start=1) if value not in given)
        return Resolution(values, tuple(unknown), missing, tuple(ignored))
