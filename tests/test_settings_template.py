"""The file that `init` writes tells of every setting, and is what the settings are without it."""

import os
import re
import stat

import pytest

from dafne_dante.cli.init_command import replaced_settings
from dafne_dante.config import SECTIONS, Settings, load_settings
from dafne_dante.settings_document import tomllib
from dafne_dante.settings_template import settings_template


def put_into_force(template):
    return re.sub(r"^# ([a-z_]+ = )", r"\1", template, flags=re.MULTILINE)


def test_the_template_says_every_setting_and_changes_none(tmp_path):
    text = settings_template()
    (tmp_path / "settings.toml").write_text(text)
    assert load_settings(tmp_path, {}) == Settings(folder=tmp_path)
    (tmp_path / "settings.toml").write_text(put_into_force(text))
    assert load_settings(tmp_path, {}) == Settings(folder=tmp_path)
    found = tomllib.loads(put_into_force(text))
    assert {name: set(found[name]) for name in SECTIONS} == {name: set(names) for name, names in SECTIONS.items()}
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    "name", [name for names in SECTIONS.values() for name in names if name not in ("threads", "memory_gib")]
)
def test_every_setting_is_explained(name):
    before = settings_template().split(f"\n# {name} = ")[0].splitlines()[-1]
    assert before.startswith("# ")
    assert len(before) > 12


def test_init_writes_it_once(command, tmp_path):
    code, out, _ = command("init")
    path = tmp_path / "configuration" / "settings.toml"
    assert (code, str(path) in out) == (0, True)
    assert path.read_text() == settings_template()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("[operator]\ndice_margin = 0.5\n")
    code, _, err = command("init")
    assert (code, "left as it is" in err) == (1, True)
    assert load_settings(tmp_path / "configuration", {}).dice_margin == 0.5


def test_a_site_has_a_file_of_its_own(command, tmp_path, monkeypatch):
    monkeypatch.setenv("DAFNE_DANTE_SITE_CONFIG", str(tmp_path / "everybody"))
    assert command("init", "--site")[0] == 0
    assert stat.S_IMODE((tmp_path / "everybody" / "settings.toml").stat().st_mode) == 0o644


@pytest.mark.parametrize("lower", ["environment", "site", "user"])
def test_the_command_line_goes_before(tmp_path, lower, monkeypatch):
    for source in ("site", "user"):
        (tmp_path / source).mkdir()
        if source == lower:
            (tmp_path / source / "settings.toml").write_text("[federation]\nretries = 1\n")
    monkeypatch.setenv("DAFNE_DANTE_SITE_CONFIG", str(tmp_path / "site"))
    if lower == "environment":
        monkeypatch.setenv("DAFNE_DANTE_RETRIES", "1")
    with replaced_settings(["retries=7", "nightly.start=09:30"]):
        settings = load_settings(tmp_path / "user")
        assert (settings.retries, settings.nightly.start) == (7, "09:30")
    assert load_settings(tmp_path / "user").retries == 1
    assert "DAFNE_DANTE_START" not in os.environ


def test_a_command_takes_settings_and_refuses_what_is_none(command):
    code, _, err = command("--set", "timeout_s=-1", "outbox", "list")
    assert (code, "timeout_s must be a number" in err) == (1, True)
    code, _, err = command("--set", "colour=red", "outbox", "list")
    assert (code, "expected a setting as NAME=VALUE, found colour" in err) == (2, True)
