"""Lengths and finiteness by the quick way are those of the dense form; updates are built late, and are the same."""

import math

import numpy as np
import pytest
import torch
from deltas import KEY, TRUSTED, make_base, make_delta, make_facts, make_updates
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_length

from dafne_dante.delta.container import StoredTensor, read_container
from dafne_dante.delta.decode import decode_delta
from dafne_dante.delta.difference import factor_norm
from dafne_dante.delta.encode import encode_delta, updates_as_sent
from dafne_dante.delta.measuring import measured_length
from dafne_dante.delta.outline import Outline
from dafne_dante.delta.precision import restore
from dafne_dante.errors import DeltaValueError
from dafne_dante.federation.contribution import contribution_from
from dafne_dante.federation.spilled import set_aside

LARGEST = float(np.finfo(np.float32).max)
NAN, INFINITY = float("nan"), float("inf")
SCALES = (0.0, 1.0, -0.5, 1e-3, 1e-20, 1e-40, 1e-45, 1e30, LARGEST / 128, LARGEST / 127, LARGEST / 3, LARGEST)


def int8_tensors(numbers, scales):
    """The two stored tensors of a dense update `w`, and its outline."""
    stored = StoredTensor("I8", numbers.shape, numbers.astype("i1").tobytes())
    rows = StoredTensor.from_tensor(torch.tensor(scales, dtype=torch.float32), "F32")
    return Outline("w", "dense", (numbers.shape,)), {"w#d": stored, "w#d#rows": rows}


def compare(outline, tensors):
    expected = slow_length(outline, tensors)
    if expected is None:
        with pytest.raises(DeltaValueError):
            measured_length(outline, tensors)
    else:
        assert measured_length(outline, tensors) == pytest.approx(expected, rel=1e-6, abs=0)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data(), rows=st.integers(1, 5), columns=st.integers(1, 40), highest=st.sampled_from([0, 1, 3, 127, 128]))
def test_int8_is_measured_as_its_dense_form(data, rows, columns, highest):
    draw = np.random.default_rng(data.draw(st.integers(0, 1000)))
    numbers = draw.integers(-highest, min(highest, 127) + 1, (rows, columns))
    scales = data.draw(st.lists(st.sampled_from((*SCALES, NAN, INFINITY)), min_size=rows, max_size=rows))
    compare(*int8_tensors(numbers, scales))


@pytest.mark.parametrize("scale", [*SCALES, NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("number", [-128, -127, -1, 0, 1, 127])
def test_each_scale_with_each_number(scale, number):
    compare(*int8_tensors(np.full((2, 3), number), [1.0, scale]))


@pytest.mark.parametrize("shape", [(), (7,), (2, 40_000), (900, 3, 5), (3, 11, 3, 3, 3), (1, 100_000)])
def test_rows_of_any_length(shape):
    numbers = np.random.default_rng(3).integers(-128, 128, shape)
    scales = np.random.default_rng(4).uniform(0.1, 2, shape[0] if shape else 1)
    compare(*int8_tensors(np.asarray(numbers), scales.tolist()))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    count=st.integers(1, 40_000),
    size=st.sampled_from([0.0, 1e-44, 1e-39, 1e-25, 1e-12, 1e-9, 1.0, 1e9, 1e18, 1e25, 1e38]),
    other=st.sampled_from([0.0, 1e-39, 1.0, 1e25]),
)
def test_float_lengths_are_those_in_double_precision(count, size, other):
    numbers = torch.randn(count, generator=torch.Generator().manual_seed(count)).clamp(-3, 3) * size
    numbers[count // 2] = other
    expected = float(torch.linalg.vector_norm(numbers.double()))
    assert factor_norm(numbers) == pytest.approx(expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("dtype", ["F16", "F32"])
@pytest.mark.parametrize("spoiled", [NAN, INFINITY, -INFINITY, 1.0])
def test_floats_are_measured_as_their_dense_form(dtype, spoiled):
    numbers = torch.linspace(-1, 1, 20_000).reshape(100, 200)
    numbers[99, 7] = spoiled
    compare(Outline("w", "dense", ((100, 200),)), {"w#d": StoredTensor.from_tensor(numbers, dtype)})


def same_numbers(found, expected):
    value, other = found.value, expected.value
    pairs = [(value, other)] if isinstance(value, torch.Tensor) else [(value.a, other.a), (value.b, other.b)]
    return found.weight == expected.weight and all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_updates_that_are_built_late_are_those_that_were_sent(precision):
    content = encode_delta(make_updates(), make_facts(), KEY, precision=precision)
    delta = decode_delta(content, base=make_base(), trusted_keys=TRUSTED)
    tensors = read_container(content).tensors
    eager = [restore(update.weight, tensors, update) for update in make_updates()]
    for found, expected, sent in zip(
        delta.updates, eager, updates_as_sent(make_updates(), precision=precision), strict=True
    ):
        assert same_numbers(found, expected)
        assert same_numbers(found, sent)
    assert delta.updates is delta.updates


def test_nothing_is_built_for_an_update_that_is_set_aside(tmp_path):
    path = tmp_path / "update.delta"
    path.write_bytes(make_delta())
    delta = decode_delta(path.read_bytes(), base=make_base(), trusted_keys=TRUSTED)
    one = contribution_from(delta, updates=set_aside(delta, path))
    assert "updates" not in vars(delta)
    assert all(same_numbers(one.updates[update.weight], update) for update in delta.updates)
    assert math.isclose(one.updates.length, delta.length)
