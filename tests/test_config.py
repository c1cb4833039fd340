"""Settings: order of sources, all faults at once, and a key that never shows."""

import stat
from pathlib import Path

import pytest

from dafne_dante.config import (
    AnnotationSettings,
    Settings,
    configuration_folder,
    is_proxy_address,
    load_settings,
    write_settings,
)
from dafne_dante.errors import SettingsError

KEY = "abcd1234.very-secret"


def written(folder, text):
    (folder / "settings.toml").write_text(text)
    return folder


def test_without_a_file_the_defaults_hold(tmp_path):
    assert load_settings(tmp_path, {}) == Settings(folder=tmp_path)


def test_what_is_written_is_read_and_only_its_owner_may(tmp_path):
    settings = Settings(
        folder=tmp_path / "new", server="https://s.org/a/", api_key='k"\\e', timeout_s=5, dice_margin=0.1
    )
    path = write_settings(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_settings(tmp_path / "new", {}) == settings


def test_what_is_said_of_annotations_comes_back(tmp_path):
    annotations = AnnotationSettings(
        folders=(tmp_path / "a", tmp_path / "b"),
        store=tmp_path / "cases",
        labels={"liver": ("hepar", 'Le"ber'), "left kidney": ("Niere li.",)},
        ignore=("couch",),
        empty_slices="unknown",
        missing_labels="absent",
        keep_cases=7,
        keep_days=30,
        keep_gib=1.5,
        keep_prepared_gib=0.0,
    )
    settings = Settings(folder=tmp_path, annotations=annotations)
    write_settings(settings)
    assert load_settings(tmp_path, {}) == settings


def test_what_is_said_of_the_network_comes_back(tmp_path):
    settings = Settings(
        folder=tmp_path,
        ca_bundle=tmp_path / "hospital.pem",
        proxy="http://site:p%40ss@proxy.example:8080",
        retries=0,
        retry_s=0.5,
        chunk_mib=2,
        cache_models=0,
        cache_gib=0.5,
    )
    write_settings(settings)
    assert load_settings(tmp_path, {}) == settings
    assert "p%40ss" not in repr(settings)


@pytest.mark.parametrize("proxy", ["", "none", "http://proxy", "https://proxy.example:8443/", "http://[::1]:3128"])
def test_addresses_of_proxies(proxy):
    assert is_proxy_address(proxy)


def test_hashes_of_trusted_model_code_come_back(tmp_path):
    settings = Settings(folder=tmp_path, run_model_code=("0" * 64, "af" * 32))
    write_settings(settings)
    assert load_settings(tmp_path, {}) == settings
    assert load_settings(tmp_path / "none", {}).run_model_code == ()


def test_the_home_folder_may_be_a_tilde(tmp_path):
    written(tmp_path, '[annotations]\nfolders = ["~/studies"]\n')
    assert load_settings(tmp_path, {}).annotations.folders == (Path.home() / "studies",)


def test_the_environment_goes_before_the_file(tmp_path):
    written(tmp_path, '[federation]\nserver = "https://file.org/"\napi_key = "file"\n')
    environment = {"DAFNE_DANTE_SERVER": "https://environment.org", "DAFNE_DANTE_TIMEOUT_S": "7"}
    settings = load_settings(tmp_path, environment)
    assert (settings.server, settings.api_key, settings.timeout_s) == ("https://environment.org/", "file", 7.0)
    assert configuration_folder({"DAFNE_DANTE_CONFIG": str(tmp_path)}) == tmp_path
    assert configuration_folder({}).name == "dafne-dante"


def test_the_key_is_in_no_representation(tmp_path):
    assert KEY not in repr(Settings(folder=Path(), api_key=KEY))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[federation]\nserver = "http://example.org/"', ["https://"]),
        ('[federation]\nserver = "ftp://example.org/"', ["https://"]),
        ("[federation]\nserver = 5", ["server must be a text"]),
        ("[federation]\ntimeout_s = -1", ["timeout_s must be a number from 0.1 to 3600"]),
        ("[federation]\ntimeout_s = true", ["timeout_s"]),
        ("[operator]\ndice_margin = 2", ["dice_margin"]),
        (
            '[federation]\nkey = "x"\n[colour]\nred = 1',
            ["unknown setting federation.key", "unknown setting colour.red"],
        ),
        (
            '[federation]\nproxy = "http://me:hidden@proxy:port"\nretries = 1.5',
            ["proxy must be", "retries must be a whole"],
        ),
        ('[federation]\nproxy = "socks5://me:hidden@proxy"\nca_bundle = 1', ["proxy must be", "ca_bundle must be"]),
        ('[federation]\nproxy = "proxy:8080"\nchunk_mib = 0', ["proxy must be", "chunk_mib must be a whole"]),
        ("[federation]\nretry_s = -1\ncache_gib = nan\ncache_models = inf", ["retry_s", "cache_gib", "cache_models"]),
        ("timeout_s = 3", ["unknown setting timeout_s"]),
        ('[annotations]\nfolders = "one"', ["folders must be a list"]),
        ('[annotations]\nignore = [""]', ["ignore must be a list"]),
        ('[annotations]\nempty_slices = "maybe"', ["empty_slices must be one of auto, background, unknown"]),
        ("[annotations]\nmissing_labels = true\nkeep_cases = 0", ["missing_labels", "keep_cases"]),
        ('[annotations.labels]\nliver = "hepar"', ["annotations.labels must give each label a list"]),
        ('[annotations]\nlabels = ["liver"]', ["annotations.labels"]),
        (f'[trust]\nrun_model_code = "{"a" * 64}"', ["run_model_code must be a list"]),
        (f'[trust]\nrun_model_code = ["{"A" * 64}"]', ["run_model_code must be a list of SHA-256"]),
        (f'[trust]\nrun_model_code = ["{"a" * 63}"]', ["run_model_code must be a list of SHA-256"]),
        ('[trust]\nrun_model_code = ["*"]', ["run_model_code must be a list of SHA-256"]),
        ("[trust]\nrun_model_code = [true]", ["run_model_code must be a list"]),
        ("run_model_code = []", ["unknown setting run_model_code"]),
        ('[federation]\nserver = "ftp://x/"\ntimeout_s = "long"', ["server", "timeout_s"]),
    ],
)
def test_all_faults_are_told_at_once(tmp_path, text, expected):
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, text), {})
    assert all(part in str(caught.value) for part in expected)
    assert str(tmp_path) not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_file_that_is_not_toml_is_told_by_line_without_quoting_it(tmp_path):
    with pytest.raises(SettingsError, match="line 2") as caught:
        load_settings(written(tmp_path, f'[federation]\napi_key = "{KEY}\n'), {})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_loopback_may_be_plain_http(tmp_path):
    settings = load_settings(written(tmp_path, '[federation]\nserver = "http://127.0.0.1:8000"'), {})
    assert settings.server == "http://127.0.0.1:8000/"


def test_names_of_the_site_stand_for_labels_of_a_model(tmp_path):
    written(tmp_path, '[labels]\nhepar = "liver"\nLeber = "liver"\n[annotations.labels]\nliver = ["foie"]\n')
    assert set(load_settings(tmp_path, {}).annotations.labels["liver"]) == {"hepar", "Leber", "foie"}
    for fault in ("[labels]\nhepar = 1", "labels = 3", '[labels]\n"" = "liver"', '[labels]\nhepar = ["liver"]'):
        with pytest.raises(SettingsError, match="labels must give each name"):
            load_settings(written(tmp_path, fault), {})


SOURCES = {"environment": 3, "site": 2, "user": 1}


@pytest.mark.parametrize(
    ("first", "second"), [("environment", "site"), ("environment", "user"), ("site", "user"), ("user", "nothing")]
)
def test_of_two_sources_the_first_holds(tmp_path, first, second):
    environment = {"DAFNE_DANTE_SITE_CONFIG": str(tmp_path / "site")}
    for source in (first, second):
        if source == "environment":
            environment["DAFNE_DANTE_RETRIES"] = str(SOURCES[source])
        elif source in SOURCES:
            (tmp_path / source).mkdir()
            written(tmp_path / source, f"[federation]\nretries = {SOURCES[source]}\n")
    assert load_settings(tmp_path / "user", environment).retries == SOURCES[first]


def test_every_setting_may_stand_in_the_environment(tmp_path):
    environment = {
        "DAFNE_DANTE_ONLY_WHEN_IDLE": "false",
        "DAFNE_DANTE_FOLDERS": '["a", "b"]',
        "DAFNE_DANTE_LABELS": '{liver = ["hepar"]}',
        "DAFNE_DANTE_THREADS": "3",
    }
    settings = load_settings(tmp_path, environment)
    assert not settings.nightly.only_when_idle
    assert settings.annotations.folders == (Path("a"), Path("b"))
    assert settings.annotations.labels == {"liver": ("hepar",)}
    assert settings.worker.threads == 3
    with pytest.raises(SettingsError, match=r"only_on_power must be true or false.*folders must be a list|folders.*"):
        load_settings(tmp_path, {"DAFNE_DANTE_ONLY_ON_POWER": "perhaps", "DAFNE_DANTE_FOLDERS": "[["})


def test_faults_of_both_files_are_told_at_once(tmp_path):
    for name, text in (("site", "[federation]\nretries = -1\n"), ("user", "[[[")):
        (tmp_path / name).mkdir()
        written(tmp_path / name, text)
    with pytest.raises(SettingsError, match=r"to be TOML.*retries must be"):
        load_settings(tmp_path / "user", {"DAFNE_DANTE_SITE_CONFIG": str(tmp_path / "site")})
