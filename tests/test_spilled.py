"""Updates on the disk: what goes wrong there is a StorageError."""

import pytest
import torch
from deltas import TRUSTED, make_base, make_delta

from dafne_dante.delta.decode import decode_delta
from dafne_dante.errors import DeltaShapeError, StorageError
from dafne_dante.federation.spilled import set_aside, spill


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "update.delta"
    path.write_bytes(make_delta())
    return path


@pytest.fixture
def aside(path):
    return set_aside(decode_delta(path.read_bytes(), base=make_base(), trusted_keys=TRUSTED), path)


def test_rows_are_those_of_the_whole(aside):
    whole = aside.rows("conv.weight", (6, 4, 3, 3), 0, 6)
    assert torch.equal(aside.rows("conv.weight", (6, 4, 3, 3), 2, 5), whole[2:5])
    assert torch.equal(aside.rows("conv.bias", (6,), 4, 6), aside["conv.bias"].value[4:6])
    assert float(aside.rows("slope", (), 0, 1)) == -0.125


def test_a_misfit_is_found_where_it_is_read(aside):
    with pytest.raises(DeltaShapeError):
        aside.rows("conv.bias", (7,), 0, 7)
    with pytest.raises(DeltaShapeError):
        aside.rows("linear.weight", (6, 5), 0, 1)


def test_a_file_that_is_gone_or_cut_off(aside, path):
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StorageError):
        [aside[name] for name in aside]
    path.unlink()
    with pytest.raises(StorageError):
        aside["slope"]


def test_a_file_that_is_kept_open_is_the_same(aside, path):
    whole = aside.rows("conv.weight", (6, 4, 3, 3), 0, 6)
    buffer = torch.empty(2 * 36)
    with aside.kept_open():
        assert torch.equal(aside.rows("conv.weight", (6, 4, 3, 3), 1, 3, buffer), whole[1:3])
        assert torch.equal(aside.rows("conv.bias", (6,), 2, 4, buffer[:2]), aside["conv.bias"].value[2:4])
    assert torch.equal(aside.rows("conv.weight", (6, 4, 3, 3), 0, 6), whole)
    path.unlink()
    with aside.kept_open(), pytest.raises(StorageError):
        aside["slope"]


def test_what_there_is_is_known_without_reading(aside, path):
    path.unlink()
    assert "slope" in aside
    assert "still.weight" not in aside


def test_a_folder_that_is_gone(aside, tmp_path):
    with pytest.raises(StorageError):
        spill([aside["slope"]], tmp_path / "gone" / "aside")
