"""The picture: everything that it should show is in its pixels, and it is whole or absent."""

import io

import numpy as np
import pytest
from PIL import Image

from dafne_dante.demo.picture import ComparisonRow, draw_comparison
from dafne_dante.errors import StorageError

ORANGE, SKY_BLUE = (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)


def row(before_has_label=True):
    image = np.zeros((20, 24, 5), dtype=np.float32)
    image[3:17, 3:21] = 500.0
    reference = np.zeros(image.shape, dtype=np.uint8)
    reference[5:10, 5:12, 2] = 1
    reference[10:15, 12:18, 2] = 2
    before = reference if before_has_label else np.zeros_like(reference)
    return ComparisonRow("Hospital", image, reference, before, reference, (2.0, 2.0, 6.0), 0.4, 0.9)


def pixels_of(path):
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")).astype(int)


def panels(path):
    """Pixels (4, height, width, 3) of the four panels, left to right."""
    pixels = pixels_of(path)
    body = pixels[: int(pixels.shape[0] * 0.8)]
    width = body.shape[1] // 4
    return [body[:, index * width : (index + 1) * width] for index in range(4)]


def count(pixels, colour):
    return int((np.abs(pixels - np.array(colour)).sum(axis=-1) < 60).sum())


def test_labels_are_drawn_where_they_are_and_nowhere_else(tmp_path):
    draw_comparison(tmp_path / "picture.png", [row(before_has_label=False)], labels=("first", "second"))
    image, reference, before, after = panels(tmp_path / "picture.png")
    for colour in (ORANGE, SKY_BLUE):
        assert count(image, colour) == 0
        assert count(before, colour) == 0
        assert count(reference, colour) > 100
        assert count(after, colour) > 100


def test_the_first_axis_runs_to_the_right_and_the_second_to_the_top(tmp_path):
    draw_comparison(tmp_path / "picture.png", [row()], labels=("first", "second"))
    reference = panels(tmp_path / "picture.png")[1]

    def centre(colour):
        return np.argwhere(np.abs(reference - np.array(colour)).sum(axis=-1) < 60).mean(axis=0)

    # Label 1 lies at low x and low y: to the left of label 2 and below it.
    assert centre(ORANGE)[1] < centre(SKY_BLUE)[1]
    assert centre(ORANGE)[0] > centre(SKY_BLUE)[0]


def test_a_row_for_every_hospital_makes_the_picture_higher(tmp_path):
    heights = []
    for number in (1, 3):
        draw_comparison(tmp_path / "picture.png", [row()] * number, labels=("first", "second"))
        heights.append(pixels_of(tmp_path / "picture.png").shape[0])
    assert heights[1] > 2 * heights[0]


def test_an_image_without_labels_or_signal_is_drawn_all_the_same(tmp_path):
    empty = np.zeros((6, 6, 3), dtype=np.uint8)
    nothing = ComparisonRow("empty", empty.astype(np.float32), empty, empty, empty, (1.0, 1.0, 1.0), 0.0, 0.0)
    draw_comparison(tmp_path / "picture.png", [nothing], labels=("first",))
    assert count(panels(tmp_path / "picture.png")[1], ORANGE) == 0


def test_a_disk_that_refuses_leaves_the_old_picture(tmp_path):
    with pytest.raises(StorageError):
        draw_comparison(tmp_path / "no such folder" / "picture.png", [row()], labels=("first", "second"))
    assert list(tmp_path.iterdir()) == []
