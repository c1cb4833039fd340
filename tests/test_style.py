"""The rules of the house hold for every file of the package, and every rule is able to fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from house_rules import (
    LAYERS,
    MAX_LINES,
    PACKAGE,
    RUNS_CODE_IN_ISOLATION,
    code_faults,
    cycles,
    docstring_faults,
    except_faults,
    execution_faults,
    export_faults,
    host_faults,
    imported_modules,
    layer_faults,
    length_faults,
    machine_path_faults,
    name_faults,
)

ROOT = Path(__file__).parent.parent
TEXT_FILES = {".cfg", ".ini", ".json", ".md", ".py", ".toml", ".txt", ".yml", ".yaml", ""}


def module_name(path):
    parts = list(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
SOURCES = {module_name(path): path.read_text(encoding="utf-8") for path in FILES}

RULES = {
    "length": lambda module, source: length_faults(source),
    "docstrings": lambda module, source: docstring_faults(source),
    "exports": lambda module, source: export_faults(source),
    "names": lambda module, source: name_faults(module),
    "excepts": lambda module, source: except_faults(source),
    "execution": lambda module, source: code_faults(module, source, SOURCES),
    "host": host_faults,
    "layers": lambda module, source: layer_faults(module, source, SOURCES),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_file_of_the_package_keeps_the_rule(rule):
    faults = {module or PACKAGE: RULES[rule](module, source) for module, source in SOURCES.items()}
    assert {module: found for module, found in faults.items() if found} == {}


def test_the_rules_see_the_whole_package():
    assert "" in SOURCES
    assert len(SOURCES) == len(FILES) > 40
    packages = {module.split(".")[0] for module in SOURCES}
    assert packages == {name for names in LAYERS for name in names}


def test_no_module_imports_itself_by_a_detour():
    assert cycles({module: imported_modules(source, SOURCES) for module, source in SOURCES.items()}) == []


def tracked_files():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts)]
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def test_no_tracked_file_names_a_path_of_this_machine():
    faults = {}
    for path in tracked_files():
        if path.is_file() and path.suffix in TEXT_FILES:
            faults[path.name] = machine_path_faults(path.read_text(encoding="utf-8"))
    assert len(faults) > 40
    assert {name: found for name, found in faults.items() if found} == {}


def test_no_file_of_the_tests_is_too_long():
    lengths = {path.name: length_faults(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("*.py")}
    assert {name: found for name, found in lengths.items() if found} == {}


def test_importing_the_package_is_light():
    """Little of the standard library and two small packages for settings: a few hundredths of a second."""
    program = "import sys; before = set(sys.modules); import dafne_dante; print(*set(sys.modules) - before)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "dafne_dante" in loaded
    expected = {*sys.stdlib_module_names, "dafne_dante", "platformdirs", "tomli_w"}
    assert {name.split(".")[0] for name in loaded} <= expected
    assert len(loaded) < 120


def test_only_the_isolated_module_may_execute_text_and_only_the_child_may_import_it():
    running = {RUNS_CODE_IN_ISOLATION: "exec('1')"}
    child = {"models.foreign.child": f"import {PACKAGE}.{RUNS_CODE_IN_ISOLATION}"}
    assert code_faults(RUNS_CODE_IN_ISOLATION, "exec('1')", running | child) == []
    assert code_faults(RUNS_CODE_IN_ISOLATION, "eval('1')", running) == ["line 1: eval()"]
    assert code_faults("models.file", "exec('1')", running) == ["line 1: exec()"]
    stranger = {"models.file": child["models.foreign.child"]}
    assert code_faults(RUNS_CODE_IN_ISOLATION, "exec('1')", running | stranger) == ["models.file imports it"]


GOOD = '''"""A module."""

__all__ = ["LIMIT", "Thing", "make"]

LIMIT = 3


class Thing:
    """A thing."""


def make():
    """Make it."""
'''


@pytest.mark.parametrize("rule", [docstring_faults, except_faults, execution_faults, export_faults, length_faults])
def test_a_good_file_has_no_faults(rule):
    assert rule(GOOD) == []


@pytest.mark.parametrize(
    ("rule", "source", "fault"),
    [
        (length_faults, "x = 1\n" * (MAX_LINES + 1), "401 lines"),
        (docstring_faults, GOOD.replace('"""A module."""', ""), "the module has no docstring"),
        (docstring_faults, GOOD.replace('"""Make it."""', "return 1"), "make has no docstring"),
        (docstring_faults, GOOD.replace('"""A thing."""', "x = 1"), "Thing has no docstring"),
        (docstring_faults, '"""M."""\nclass A:\n    """A."""\n    def b(self): return 1', "A.b has no docstring"),
        (export_faults, '"""M."""', "no __all__"),
        (export_faults, GOOD.replace('["LIMIT", "Thing", "make"]', '["Thing", "LIMIT", "make"]'), "not sorted"),
        (export_faults, GOOD.replace("class Thing:", "class Other:"), "Thing, which does not exist"),
        (export_faults, GOOD.replace(', "make"]', "]"), "make is public but not in __all__"),
        (except_faults, "try:\n    f()\nexcept:\n    pass", "line 3"),
        (except_faults, "try:\n    f()\nexcept Exception as error:\n    raise", "line 3"),
        (except_faults, "try:\n    f()\nexcept (OSError, BaseException):\n    raise", "line 3"),
        (execution_faults, "import pickle\npickle.loads(b'')", "pickle.loads()"),
        (execution_faults, "from pickle import load", "loaders by name"),
        (execution_faults, "def f():\n    import dill", "imports dill"),
        (execution_faults, "import torch\ntorch.load('x')", "without weights_only=True"),
        (execution_faults, "import torch\ntorch.load('x', weights_only=False)", "without weights_only=True"),
        (execution_faults, "import numpy as np\nnp.load('x', allow_pickle=True)", "np.load(allow_pickle=True)"),
        (execution_faults, "exec('1')", "exec()"),
        (execution_faults, "eval('1')", "eval()"),
        (machine_path_faults, "path = '" + "/wo" + "rk/main'", "line 1"),
        (machine_path_faults, "see " + "/tm" + "p/x.txt", "line 1"),
    ],
)
def test_a_rule_finds(rule, source, fault):
    assert any(fault in found for found in rule(source))


@pytest.mark.parametrize(
    "source",
    ["network.eval()", "torch.load(x, weights_only=True)", "np.load(x)", "import pickle\npickle.dumps(1)"],
)
def test_what_runs_nothing_is_allowed(source):
    assert execution_faults(source) == []


def test_a_function_that_its_decorator_hands_over_needs_no_export():
    source = GOOD.replace(', "make"]', "]").replace("def make", "@application.command()\ndef make")
    assert export_faults(source) == []


def test_links_and_relative_paths_are_no_paths_of_a_machine():
    assert machine_path_faults("https://example.org/work/x and ./tmp/y and network/tmp/z") == []


@pytest.mark.parametrize(
    ("module", "source", "forbidden"),
    [
        ("annotations.case", "from dafne_dante.models.plan import ModelPlan", "models.plan"),
        ("errors", "import dafne_dante.config, dafne_dante.delta.manifest", "delta.manifest"),
        ("training.loop", "def f():\n    from dafne_dante.delta import manifest", "delta.manifest"),
        ("delta.manifest", "import dafne_dante", "dafne_dante"),
        ("plugin.improve", "from dafne_dante.cli.output import print_object", "cli.output"),
    ],
)
def test_an_arrow_that_points_outwards_is_found(module, source, forbidden):
    known = {"models.plan", "delta.manifest", "cli.output"}
    assert layer_faults(module, source, known) == [f"{module} must not import {forbidden}"]


def test_arrows_that_point_inwards_or_sideways_are_allowed():
    source = "from dafne_dante.errors import DanteError\nfrom dafne_dante.demo import picture\nimport torch"
    assert layer_faults("cli.main", source, {"demo.picture"}) == []


def test_a_module_of_no_layer_is_found():
    assert layer_faults("toolbox.hammer", "") == ["toolbox.hammer belongs to no layer"]


def test_a_cycle_is_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a -> b -> c -> a"]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_only_the_host_may_know_the_host():
    assert host_faults("host.dafne_qt", "import PyQt5.QtWidgets\nfrom dafne.ui import x") == []
    assert host_faults("plugin.improve", "def f():\n    from PyQt5 import QtCore") == ["plugin.improve imports PyQt5"]
    assert host_faults("models.file", "import dafne_dl") == ["models.file imports dafne_dl"]


@pytest.mark.parametrize("module", ["utils", "delta.helpers", "plugin.job_manager", "misc.clock"])
def test_a_name_that_says_nothing_is_found(module):
    assert name_faults(module) != []
