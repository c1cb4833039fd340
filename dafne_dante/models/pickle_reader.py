"""Pickles read as data: an interpreter of the few opcodes that Dafne's files use, which imports and runs nothing.

Terms: a *global* is a name ("module.attribute") by which a pickle asks for a Python object; the *vocabulary* lists
the globals that a file may name and what we do, with code of our own, where the file says "call it".

Invariants: no global is ever imported, so no foreign code can run; every other name is refused and named in the
error; the opcodes that exist only to call or to look up things (INST, OBJ, NEWOBJ_EX, EXT, persistent ids) are
refused; long byte strings are views of the content, never copies, so a claim beyond the content costs nothing; the
work is bounded by a budget that nested pickles share. There is no recursion here: whoever walks the result bounds
its own depth, and must expect one object in many places, even inside itself.

Source: the opcodes as CPython's pickletools documents them.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from dafne_dante.errors import DamagedModelError, UnsafeModelError

__all__ = ["Budget", "Buildable", "Global", "Vocabulary", "read_pickle"]

_NAME_LENGTH = 100
_LINE_BYTES = 1024


@dataclass(frozen=True)
class Global:
    """A name from the vocabulary, standing for itself: nothing was looked up."""

    name: str


@runtime_checkable
class Buildable(Protocol):
    """A value of ours that the pickle may complete (opcode BUILD)."""

    def build(self, state: Any) -> None:
        """Take the state; DamagedModelError where it is malformed."""


@dataclass
class Budget:
    """Opcodes that may still be carried out, nested pickles included; text costs one more for each 1024 bytes."""

    opcodes: int = 1_000_000

    def spend(self, opcodes: int) -> None:
        """Count them; DamagedModelError when none is left."""
        self.opcodes -= opcodes
        if self.opcodes < 0:
            raise DamagedModelError("expected a model file of a million pickle opcodes at most, found more")


@dataclass(frozen=True)
class Vocabulary:
    """What a pickle may name.

    Attributes:
        calls: global to the function of ours that takes the arguments' tuple where the pickle calls the global.
        names: globals that may be named but not called.
        persistent: takes a persistent id; None refuses them.
    """

    calls: Mapping[str, Callable[[tuple[Any, ...]], Any]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    persistent: Callable[[Any], Any] | None = None


def read_pickle(content: memoryview, start: int, vocabulary: Vocabulary, budget: Budget) -> tuple[Any, int]:
    """Read one pickle of `content` (bytes) from offset `start`; return its value and the offset behind it.

    Values are None, bool, int, float, str, memoryview (for bytes), list, tuple, dict, Global and what the vocabulary
    returns.

    Raises:
        UnsafeModelError: a global outside the vocabulary, or an opcode that calls or looks up things.
        DamagedModelError: truncated, not a pickle, or a form that Dafne never writes.
    """
    machine = _Machine(content, start, vocabulary, budget)
    try:
        while not machine.finished:
            machine.step()
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise DamagedModelError(
            "expected a whole model file, found broken pickle data; download the file again"
        ) from error
    return machine.result, machine.position


class _Machine:
    """The pickle machine: a stack with marks, and a memo."""

    def __init__(self, content: memoryview, start: int, vocabulary: Vocabulary, budget: Budget) -> None:
        self.content = content
        self.position = start
        self.vocabulary = vocabulary
        self.budget = budget
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.finished = False
        self.result: Any = None

    def step(self) -> None:
        self.budget.spend(1)
        name = _NAMES.get(self.content[self.position], "?")
        self.position += 1
        if name in _FIXED:
            self.fixed(name)
        elif name in _COUNTED:
            self.counted(name)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self)
        else:
            raise _refused(name)

    def fixed(self, name: str) -> None:
        """Opcodes with an argument of fixed size: numbers, the memo, and the headers that we can ignore."""
        argument = self.number(_FIXED[name])
        if name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            self.stack.append(argument)

    def counted(self, name: str) -> None:
        """Opcodes with an argument that says its length: text, bytes and long numbers."""
        form, convert = _COUNTED[name]
        view = self.take(self.number(form))
        if convert is not _same:
            self.budget.spend(len(view) // 1024)
        self.stack.append(convert(view))

    def take(self, length: int) -> memoryview:
        end = self.position + length
        if end > len(self.content):
            raise IndexError("claims more bytes than there are")
        view = self.content[self.position : end]
        self.position = end
        return view

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        line, ending, _ = bytes(self.content[self.position : self.position + _LINE_BYTES]).partition(b"\n")
        if not ending:
            raise IndexError("no end of line")
        self.position += len(line) + 1
        return line.decode("utf-8")

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def push_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise DamagedModelError("expected the name of a global as text; download the file again")
        found = f"{module}.{name}"
        if found not in self.vocabulary.calls and found not in self.vocabulary.names:
            raise UnsafeModelError(
                f"expected only data, found {_printable(found)}; this file would run code: do not load it anywhere"
            )
        self.stack.append(Global(found))

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise UnsafeModelError("expected only data, found a call of a computed object; do not load this file")
        action = self.vocabulary.calls.get(function.name)
        if action is None:
            raise UnsafeModelError(f"expected only data, found a call of {function.name}; do not load this file")
        self.stack.append(action(arguments))

    def build(self) -> None:
        """Complete the object below the state. An OrderedDict's own attributes (torch's `_metadata`) are ignored."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Buildable):
            target.build(state)
        elif not isinstance(target, dict):
            raise UnsafeModelError(
                f"expected only data, found a state for a {type(target).__name__}; do not load this file"
            )

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise DamagedModelError("expected a list to append to; download the file again")
        target.extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise DamagedModelError("expected a dictionary and pairs for it; download the file again")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if key is not None and not isinstance(key, (str, int, float)):
                raise DamagedModelError(f"expected text or numbers as keys, found {type(key).__name__}")
            target[key] = value

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("stack underflow")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def pack(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def persistent(self) -> None:
        if self.vocabulary.persistent is None:
            raise _refused("BINPERSID")
        self.stack.append(self.vocabulary.persistent(self.stack.pop()))

    def inst(self) -> None:
        self.push_global(self.line(), self.line())
        raise _refused("INST")

    def stop(self) -> None:
        if len(self.stack) != 1 or self.marked:
            raise IndexError("values left over")
        self.result, self.finished = self.stack[0], True


def _text(view: memoryview) -> str:
    return bytes(view).decode("utf-8")


def _integer(view: memoryview) -> int:
    return int.from_bytes(view, "little", signed=True)


def _same(view: memoryview) -> memoryview:
    return view


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_NAME_LENGTH])


def _refused(name: str) -> DamagedModelError | UnsafeModelError:
    if name in _LOOKUPS:
        return UnsafeModelError(f"expected only data, found the pickle opcode {name}; do not load this file anywhere")
    return DamagedModelError(f"expected a pickle as Dafne writes it, found the opcode {name}; download the file again")


_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_LOOKUPS = frozenset({"INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"})
_FIXED = {
    "PROTO": "<B", "FRAME": "<Q", "BININT": "<i", "BININT1": "<B", "BININT2": "<H", "BINFLOAT": ">d",
    "BINPUT": "<B", "LONG_BINPUT": "<I", "BINGET": "<B", "LONG_BINGET": "<I",
}  # fmt: skip
_COUNTED: dict[str, tuple[str, Callable[[memoryview], Any]]] = {
    "SHORT_BINUNICODE": ("<B", _text),
    "BINUNICODE": ("<I", _text),
    "BINUNICODE8": ("<Q", _text),
    "SHORT_BINBYTES": ("<B", _same),
    "BINBYTES": ("<I", _same),
    "BINBYTES8": ("<Q", _same),
    "BYTEARRAY8": ("<Q", _same),
    "LONG1": ("<B", _integer),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict,
}  # fmt: skip
_STEPS: dict[str, Callable[[_Machine], None]] = {
    "STOP": _Machine.stop,
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "TUPLE": lambda machine: machine.pack(machine.pop_mark()),
    "TUPLE1": lambda machine: machine.pack(machine.last(1)),
    "TUPLE2": lambda machine: machine.pack(machine.last(2)),
    "TUPLE3": lambda machine: machine.pack(machine.last(3)),
    "APPEND": lambda machine: machine.extend(machine.last(1)),
    "APPENDS": lambda machine: machine.extend(machine.pop_mark()),
    "SETITEM": lambda machine: machine.update(machine.last(2)),
    "SETITEMS": lambda machine: machine.update(machine.pop_mark()),
    "GLOBAL": lambda machine: machine.push_global(machine.line(), machine.line()),
    "STACK_GLOBAL": lambda machine: machine.push_global(*machine.last(2)),
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    "INST": _Machine.inst,
}
