"""What a person sees of the cache: kept cases are prepared once, `cases remove` leaves nothing, `--data` nothing."""

import json

import pytest
from sites import write_cases

from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import digest_weights

TINY = ("--epochs", 1, "--architecture", "unet2d", "--memory-gb", 0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("data"), (41, 42, 43))


def prepared(tmp_path):
    return sorted((tmp_path / "configuration" / "cases" / "prepared").glob("*"))


def weights(command, tmp_path, name, *options):
    code, _, err = command("train", "--out", tmp_path / name, *TINY, *options)
    assert code == 0, err
    return digest_weights(read_model(tmp_path / name / "model.model").weights)


def test_a_kept_case_is_prepared_once_and_leaves_with_its_case(command, data, tmp_path):
    code, _, err = command("cases", "add", data)
    assert code == 0, err
    first = weights(command, tmp_path, "one")
    files = prepared(tmp_path)
    inodes = [path.stat().st_ino for path in files]
    assert len(files) == 3
    assert weights(command, tmp_path, "two") == first
    assert [path.stat().st_ino for path in prepared(tmp_path)] == inodes, "read, not written again"
    removed = files[0].name[:16]
    assert command("cases", "remove", removed)[0] == 0
    assert prepared(tmp_path) == files[1:]
    code, out, err = command("cases", "verify", "--json")
    assert (code, json.loads(out)["damaged"]) == (0, []), err


def test_nothing_is_left_of_cases_in_a_folder_that_is_named(command, data, tmp_path):
    weights(command, tmp_path, "one", "--data", data)
    assert not (tmp_path / "configuration" / "cases").exists(), "no store by surprise"
    assert command("cases", "add", data)[0] == 0
    weights(command, tmp_path, "two", "--data", data)
    assert not prepared(tmp_path)


def test_a_site_may_want_none_of_it(command, data, tmp_path):
    (tmp_path / "configuration").mkdir()
    (tmp_path / "configuration" / "settings.toml").write_text("[annotations]\nkeep_prepared_gib = 0\n")
    assert command("cases", "add", data)[0] == 0
    weights(command, tmp_path, "one")
    assert not prepared(tmp_path)
