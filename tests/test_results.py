"""Results of a run come together or not at all."""

import pytest

from dafne_dante.errors import StorageError
from dafne_dante.plugin.results import results_folder


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_run_that_fails_leaves_no_trace(tmp_path):
    with pytest.raises(StorageError, match="No space"), results_folder(tmp_path / "new" / "out") as folder:
        (folder / "improved.model").write_text("half a run")
        raise StorageError("cannot write update.delta: No space left on device")
    assert everything(tmp_path) == {}


def test_an_interrupted_run_leaves_the_results_of_the_last_one(tmp_path):
    (tmp_path / "update.delta").write_text("of another day")
    with pytest.raises(KeyboardInterrupt), results_folder(tmp_path) as folder:
        (folder / "update.delta").write_text("of today")
        raise KeyboardInterrupt
    assert everything(tmp_path) == {"update.delta": b"of another day"}


def test_a_run_that_ends_well_replaces_them(tmp_path):
    (tmp_path / "update.delta").write_text("of another day")
    (tmp_path / "notes.txt").write_text("mine")
    with results_folder(tmp_path) as folder:
        (folder / "update.delta").write_text("of today")
        assert (tmp_path / "update.delta").read_text() == "of another day"
    assert everything(tmp_path) == {"update.delta": b"of today", "notes.txt": b"mine"}


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/1/results"])
def test_a_place_that_cannot_be_written_to_is_told_before_any_work(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError) as refused, results_folder(tmp_path / place):
        pytest.fail("the block must not run")
    assert str(tmp_path) not in str(refused.value)
    assert everything(tmp_path) == {"file": b"mine"}
