"""What a report is made from, without a training: phantoms, and models that draw them too small."""

import dataclasses

import numpy as np
import torch
from deltas import KEY, MODEL_ID, make_facts, make_updates
from phantoms import make_case, tiny_plan

from dafne_dante.delta.encode import encode_delta
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.plugin.division import divide
from dafne_dante.plugin.report.facts import ReportFacts
from dafne_dante.plugin.report.measured import Measurements, pair_measurements
from dafne_dante.plugin.summary import ImprovementSummary
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.metrics import average_dice, dice_per_label


def eroded(case, slices):
    """A prediction that misses the first slices."""
    prediction = case.segmentation.copy()
    prediction[:, :, :slices] = 0
    return prediction


def relabelled(case, labels):
    return dataclasses.replace(case, labels=labels)


def measure(cases, missed):
    measurements = Measurements()
    for case, slices in zip(cases, missed, strict=True):
        prediction = eroded(case, slices)
        measurements.take(case, prediction, dice_per_label(prediction, case.segmentation, case.annotated, case.labels))
    return measurements.items


def report_facts(*, labels=("ball", "box"), cases=None, before=(9, 8, 7), after=(2, 4, 3), **changes):
    """Facts of a cross-fit over the cases; each model misses so many slices of each."""
    cases = [relabelled(case, labels) for case in (cases or [make_case(seed) for seed in (1, 2, 3)])]
    old, new = measure(cases, before), measure(cases, after)
    content = encode_delta(make_updates(), make_facts(cases=len(cases)), KEY)
    plan = tiny_plan(labels=labels)
    means = [average_dice([one.dice for one in items], labels) for items in (old, new)]
    summary = ImprovementSummary(
        dice_before=means[0], dice_after=means[1], delta_bytes=len(content), model_bytes=100_000, method="lora",
        epochs=3, best_epoch=2, step=1.0, seconds=75.0, gate="passed", gate_reason="mean Dice went up",
        cases=len(cases), held_out=len(cases), cross_fit=True, uploaded=False,
    )  # fmt: skip
    history = [
        EpochRecord(epoch, epoch * 9.0, 1 / epoch, 0.9 / epoch, {"mean": 0.5, **dict.fromkeys(labels, 0.5)}, 120)
        for epoch in (1, 2, 3)
    ]
    facts = {
        "summary": dataclasses.replace(summary, **changes),
        "model_type": "Leg",
        "base": GlobalModel(MODEL_ID, 1_700_000_000, plan, {"w": torch.ones(10, 100)}, {}),
        "division": divide(cases, seed=0),
        "history": history,
        "held_out": pair_measurements(old, new),
        "delta": content,
        "upload": False,
    }
    return ReportFacts(**facts)


def big_cases(size=128):
    """Three cases as large as a hospital's, noisy, with blobs of two labels."""
    random = np.random.default_rng(0)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    for number in range(3):
        case = make_case(number, shape=(size, size, size))
        image = random.normal(100, 30, (1, size, size, size)).astype(np.float32)
        noisy = np.where(random.random((size,) * 3) < 0.1, 1, case.segmentation).astype(np.uint8)
        yield dataclasses.replace(case, image=image, segmentation=noisy, affine=affine)
