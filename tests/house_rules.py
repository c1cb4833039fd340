"""The rules of the house as functions of source text; each returns the faults it found, in words.

Terms: a module is named from the package on, for example `delta.manifest`; the package itself is "" and `delta` is
delta's own `__init__`. Layers are numbered from the foundation (0) to the outside.

Invariants: nothing is imported or run, only parsed, so that a rule sees also what hides in a function.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping

PACKAGE = "dafne_dante"
LAYERS = (
    (
        "_version",
        "config",
        "durable",
        "errors",
        "keychain",
        "settings_editing",
        "settings_template",
        "settings_document",
        "settings_sections",
        "settings_values",
        "types",
    ),
    ("annotations",),
    ("models",),
    ("adaptation",),
    ("training",),
    ("delta",),
    ("federation",),
    ("plugin",),
    ("__main__", "benchmark", "cli", "demo", "host"),
    ("",),
)
MAX_LINES = 400
VAGUE_NAMES = re.compile(r"(utils?|helpers?|managers?|misc|common)$")
HOST_ONLY = ("PyQt5", "dafne", "dafne_dl")
BROAD = ("Exception", "BaseException")
FORBIDDEN_MODULES = ("cloudpickle", "dill", "marshal", "shelve")
RUNS_CODE_IN_ISOLATION = "models.foreign.running"  # decision 0010: the one place that executes text
FORBIDDEN_BUILTINS = ("compile", "eval", "exec", "__import__")
# A folder of a development machine; links and longer names are no such thing.
_MACHINE_PATH = re.compile(r"(?<![\w/.:~*-])/(?:work|tmp|root)/[\w.]")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def layer_of(module: str) -> int | None:
    """The number of the layer that the module's first part belongs to; None for a stranger."""
    first = module.split(".")[0]
    return next((number for number, names in enumerate(LAYERS) if first in names), None)


def imported_modules(source: str, known: Iterable[str] = ()) -> set[str]:
    """Modules of the package that the source imports anywhere; `known` tells submodules from names in a module."""
    known = set(known)
    found = set()
    for dotted, names in _imports(source):
        if dotted.split(".")[0] != PACKAGE:
            continue
        module = dotted.removeprefix(PACKAGE).removeprefix(".")
        submodules = {f"{module}.{name}".removeprefix(".") for name in names} & known
        found |= submodules
        if not names or len(submodules) < len(names):
            found.add(module)
    return found


def layer_faults(module: str, source: str, known: Iterable[str] = ()) -> list[str]:
    """Imports that point outwards, and modules that belong to no layer."""
    own = layer_of(module)
    if own is None:
        return [f"{module} belongs to no layer"]
    faults = []
    for target in sorted(imported_modules(source, known)):
        other = layer_of(target)
        if other is None or other > own:
            faults.append(f"{module} must not import {target or PACKAGE}")
    return faults


def cycles(graph: Mapping[str, set[str]]) -> list[str]:
    """Import cycles, each as "a -> b -> a"."""
    done: set[str] = set()
    faults: list[str] = []

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            faults.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                walk(target, [*path, module])
            done.add(module)

    for start in sorted(graph):
        walk(start, [])
    return faults


def length_faults(source: str) -> list[str]:
    """A file that holds more than one idea, by its number of lines."""
    lines = len(source.splitlines())
    return [f"{lines} lines, at most {MAX_LINES}"] if lines > MAX_LINES else []


def docstring_faults(source: str) -> list[str]:
    """Public things without a docstring: the module, its functions and classes, and their methods."""
    tree = ast.parse(source)
    faults = [] if ast.get_docstring(tree) else ["the module has no docstring"]
    return faults + [f"{name} has no docstring" for name, node in _public(tree) if not ast.get_docstring(node)]


def export_faults(source: str) -> list[str]:
    """`__all__` missing, unsorted, or not the public names that the module has."""
    tree = ast.parse(source)
    exported = _exported(tree)
    if exported is None:
        return ["no __all__"]
    faults = []
    if exported != sorted(exported, key=_export_order):
        faults.append("__all__ is not sorted")
    faults += [f"__all__ names {name}, which does not exist" for name in exported if name not in _bound(tree.body)]
    public = {name for name, node in _public(tree) if "." not in name and not _is_registered(node)}
    return faults + [f"{name} is public but not in __all__" for name in sorted(public - set(exported))]


def name_faults(module: str) -> list[str]:
    """Files and packages whose names say nothing."""
    return [f"{part} says nothing" for part in module.split(".") if VAGUE_NAMES.search(part)]


def except_faults(source: str) -> list[str]:
    """Handlers that would also catch a fault of our own."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or (isinstance(kind, ast.Name) and kind.id in BROAD) for kind in kinds):
                faults.append(f"line {node.lineno}: a broad except")
    return faults


def execution_faults(source: str) -> list[str]:
    """Calls and imports that could run what came from outside."""
    faults = [
        f"imports {dotted}" for dotted, _ in _imports(source) if dotted.split(".")[0] in FORBIDDEN_MODULES
    ]  # fmt: skip
    faults += [
        "imports pickle's loaders by name"
        for dotted, names in _imports(source)
        if dotted == "pickle" and {"load", "loads"} & set(names)
    ]
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return faults + [f"line {call.lineno}: {fault}" for call in calls if (fault := _call_fault(call))]


def code_faults(module: str, source: str, everything: Mapping[str, str]) -> list[str]:
    """`execution_faults`, but for exec() in the module that runs in isolation, which the child alone may import."""
    faults = execution_faults(source)
    if module != RUNS_CODE_IN_ISOLATION:
        return faults
    importers = {name for name, text in everything.items() if module in imported_modules(text, everything)}
    strangers = sorted(importers - {"models.foreign.child"})
    return [fault for fault in faults if not fault.endswith(": exec()")] + [f"{name} imports it" for name in strangers]


def host_faults(module: str, source: str) -> list[str]:
    """Imports of the host program or of Qt outside the host adapter."""
    if module.split(".")[0] == "host":
        return []
    return [f"{module} imports {dotted}" for dotted, _ in _imports(source) if dotted.split(".")[0] in HOST_ONLY]


def machine_path_faults(text: str) -> list[str]:
    """Absolute paths of the machine that the text was written on."""
    return [f"line {number}" for number, line in enumerate(text.splitlines(), 1) if _MACHINE_PATH.search(line)]


def _imports(source: str) -> Iterator[tuple[str, list[str]]]:
    """(module, imported names) of every import statement, wherever it stands; relative ones are refused by ruff."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, [alias.name for alias in node.names]


def _call_fault(call: ast.Call) -> str:
    name = ast.unparse(call.func)
    options = {option.arg: ast.unparse(option.value) for option in call.keywords}
    if name in FORBIDDEN_BUILTINS or name in ("pickle.load", "pickle.loads"):
        return f"{name}()"
    if name == "torch.load" and options.get("weights_only") != "True":
        return "torch.load() without weights_only=True"
    if name.endswith(".load") and options.get("allow_pickle") == "True":
        return f"{name}(allow_pickle=True)"
    return ""


def _public(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


def _is_registered(node: Definition) -> bool:
    """Whether a decorator such as `@application.command()` hands the thing to somebody, who then calls it."""
    return any(isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) for mark in node.decorator_list)


def _exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def _export_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each by name: the order that ruff keeps (RUF022)."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def _bound(body: Iterable[ast.stmt]) -> set[str]:
    """Names that the statements bind in the module, also inside if and try."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, Definition):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
        elif isinstance(node, ast.If | ast.Try):
            names |= _bound([*node.body, *node.orelse])
    return names
