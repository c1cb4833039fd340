"""The manifest tells a host the truth about this version, and the schema refuses one that could not."""

import copy
import importlib
import json
from dataclasses import asdict, fields
from pathlib import Path

import jsonschema
import pytest
from fakes import FakeHost

import dafne_dante
from dafne_dante.config import AnnotationSettings, NightlySettings, Settings, WorkerSettings
from dafne_dante.host.protocol import API_VERSION

ROOT = Path(__file__).parent.parent
MANIFEST = json.loads((ROOT / "plugin_manifest.json").read_text())
SCHEMA = json.loads((ROOT / "docs" / "plugin-manifest.schema.json").read_text())


def check(manifest):
    jsonschema.Draft202012Validator(SCHEMA).validate(manifest)


def test_the_manifest_is_valid():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    check(MANIFEST)
    assert (ROOT / MANIFEST["$schema"]).is_file()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "Dafne Dante"),
        ("version", "1"),
        ("api_version", 0),
        ("entry_point", "dafne_dante"),
        ("entry_point", "import os; os:system"),
        ("hosts", {}),
        ("triggers", [{"id": "full-moon", "label": "x", "state": "available"}]),
        ("actions", [{"id": "a", "label": "", "trigger": "improve-button"}]),
        ("settings", {"type": 7}),
        ("data", {"reads": ["a"], "writes": ["b"], "sends": ["c"]}),
        ("surprise", True),
    ],
)
def test_the_schema_refuses(key, value):
    manifest = copy.deepcopy(MANIFEST)
    manifest[key] = value
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


@pytest.mark.parametrize("key", sorted(SCHEMA["required"]))
def test_the_schema_refuses_a_manifest_without(key):
    with pytest.raises(jsonschema.ValidationError):
        check({name: value for name, value in MANIFEST.items() if name != key})


def test_versions_are_those_of_the_package():
    assert MANIFEST["version"] == dafne_dante.__version__
    assert MANIFEST["api_version"] == API_VERSION


def test_the_entry_point_registers_exactly_the_actions_of_the_manifest(tmp_path):
    module, function = MANIFEST["entry_point"].split(":")
    host = FakeHost(tmp_path)
    getattr(importlib.import_module(module), function)(host)
    assert {name: label for name, (label, _) in host.actions.items()} == {
        action["id"]: action["label"] for action in MANIFEST["actions"]
    }


def test_triggers_that_are_not_available_are_not_registered(tmp_path):
    states = {trigger["id"]: trigger["state"] for trigger in MANIFEST["triggers"]}
    assert set(states) == {"annotation-saved", "nightly", "improve-button"}
    host = FakeHost(tmp_path)
    dafne_dante.register(host)
    assert ("annotation-saved" in [event for event, _ in host.subscriptions]) == (
        states["annotation-saved"] == "available"
    )
    assert all(states[action["trigger"]] == "available" for action in MANIFEST["actions"])


SECTIONS = {"annotations": AnnotationSettings, "nightly": NightlySettings, "worker": WorkerSettings}


def test_settings_are_those_of_the_package_with_the_same_defaults():
    properties = MANIFEST["settings"]["properties"]
    described = {name: entry["default"] for name, entry in properties.items() if name not in SECTIONS}
    plain = {
        item.name: item.default for item in fields(Settings) if item.name not in {"folder", "key_fault", *SECTIONS}
    }
    assert described == {**plain, "run_model_code": []}
    assert plain["run_model_code"] == ()
    inner = {
        name: {setting: entry["default"] for setting, entry in properties[name]["properties"].items()}
        for name in SECTIONS
    }
    assert inner["annotations"] == {**asdict(AnnotationSettings()), "folders": [], "ignore": []}
    assert (inner["nightly"], inner["worker"]) == (asdict(NightlySettings()), asdict(WorkerSettings()))
    jsonschema.Draft202012Validator(MANIFEST["settings"]).validate({**described, **inner})
