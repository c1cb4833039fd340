"""Admission: each reason to refuse has an error of its own, and the dear checks come last."""

import math
from collections.abc import Mapping

import pytest
import torch
from deltas import KEY, LABELS, MODEL_ID, OTHER_KEY, TRUSTED, UPDATE_ID, make_base, make_delta, replace_numbers

from dafne_dante.delta.difference import WeightUpdate, relative_norm
from dafne_dante.delta.signing import public_key_text
from dafne_dante.errors import (
    DanteError,
    DeltaBaseError,
    DeltaFormatError,
    DeltaNormError,
    DeltaReplayError,
    DeltaSignatureError,
    DeltaValueError,
    IncompatibleModelError,
)
from dafne_dante.federation.admission import admit
from dafne_dante.models.global_model import digest_weights

BASE = make_base()
BASES = {digest_weights(BASE): BASE}


def try_to_admit(content, **changes):
    arguments = {
        "bases": BASES, "trusted_keys": TRUSTED, "seen_update_ids": set(), "model_id": MODEL_ID, "labels": LABELS,
        "max_norm_ratio": 1.0,
    }  # fmt: skip
    return admit(content, **{**arguments, **changes})


def long_update(ratio):
    """An update of one weight whose length is `ratio` of the base's."""
    length = math.sqrt(sum(float(tensor.norm()) ** 2 for tensor in BASE.values() if tensor.is_floating_point()))
    return WeightUpdate("linear.weight", torch.full((5, 6), ratio * length / math.sqrt(30)))


def test_a_proper_delta_is_admitted():
    delta = try_to_admit(make_delta())
    assert delta.manifest.update_id == str(UPDATE_ID)
    assert len(delta.updates) == 4
    assert try_to_admit(make_delta(), model_id=str(MODEL_ID)).public_key == public_key_text(KEY)


REFUSED = {
    "noise": (lambda: b"noise that is no delta", {}, DeltaFormatError),
    "unknown site": (lambda: make_delta(key=OTHER_KEY), {}, DeltaSignatureError),
    "nobody trusted": (make_delta, {"trusted_keys": {}}, DeltaSignatureError),
    "seen before": (make_delta, {"seen_update_ids": {str(UPDATE_ID)}}, DeltaReplayError),
    "another family": (
        lambda: make_delta(model_id="11111111-2222-4333-8444-555555555555"),
        {},
        IncompatibleModelError,
    ),
    "other labels": (make_delta, {"labels": ("left", "middle")}, IncompatibleModelError),
    "labels in another order": (make_delta, {"labels": LABELS[::-1]}, IncompatibleModelError),
    "a base that is gone": (make_delta, {"bases": {}}, DeltaBaseError),
    "a base that never was": (lambda: make_delta(base_sha256="0" * 64), {}, DeltaBaseError),
    "a base under another's name": (
        make_delta,
        {"bases": {digest_weights(BASE): {**BASE, "slope": torch.tensor(9.0)}}},
        DeltaBaseError,
    ),
    "NaN": (lambda: replace_numbers(make_delta(), "slope#d", float("nan")), {}, DeltaValueError),
    "absurd length": (lambda: make_delta([long_update(1.01)]), {}, DeltaNormError),
    "length beyond a tight bound": (make_delta, {"max_norm_ratio": 1e-3}, DeltaNormError),
}


@pytest.mark.parametrize(("content", "changes", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_each_refusal_has_its_own_error(content, changes, error):
    with pytest.raises(DanteError) as refused:
        try_to_admit(content(), **changes)
    assert type(refused.value) is error


def test_the_bound_is_a_share_of_the_base():
    assert relative_norm(try_to_admit(make_delta([long_update(0.99)])).updates, BASE) == pytest.approx(0.99, rel=1e-3)
    assert try_to_admit(make_delta([long_update(1.01)]), max_norm_ratio=1.02)


class Unread(Mapping):
    """Bases that must not be read."""

    def __getitem__(self, name):
        raise AssertionError("a base was read")

    def __iter__(self):
        return iter(BASES)

    def __len__(self):
        return len(BASES)


@pytest.mark.parametrize("name", ["unknown site", "seen before", "another family", "other labels"])
def test_no_base_is_read_for_what_the_manifest_tells(name):
    content, changes, error = REFUSED[name]
    with pytest.raises(error):
        try_to_admit(content(), **{"bases": Unread(), **changes})


def test_a_replay_is_told_before_all_that_can_change_with_time():
    """The base may be gone by then, but the reason stays the same."""
    with pytest.raises(DeltaReplayError):
        try_to_admit(make_delta(), bases={}, seen_update_ids=[str(UPDATE_ID)])
