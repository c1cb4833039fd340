"""Bytes of a delta over those of the full model's file: LoRA at rank 8, and gradual unfreezing.

    .venv/bin/python benchmarks/delta_size.py [--stages 6] [--rank 8]

The network is a DynUNet of the size that dante_train makes by default: a file of some 250 MB with 61 million numbers,
half of them twice, since MONAI's DynUNet names its blocks twice. Sizes
depend on shapes and on how exactly numbers are stored, not on what was learned, so the updates are drawn: LoRA's B and
dense changes from a normal distribution, which no singular value decomposition makes smaller, so that what training
really gives (plugin/tuning.py) is at most as large. Prints one line a method with its share and the target.
"""

import argparse
import tempfile
from pathlib import Path
from uuid import UUID

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante.adaptation.gradual import GradualUnfreezing
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.low_rank_method import LowRankAdaptation
from dafne_dante.adaptation.protocol import Method
from dafne_dante.delta.difference import take_difference
from dafne_dante.delta.encode import DeltaFacts, encode_delta
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.file import write_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.stock_functions import stock_metadata, stock_sources

LABELS = ("grey matter", "white matter")
EPOCHS = 15


def large_plan(stages: int) -> ModelPlan:
    """A DynUNet that pools by two along every axis, but in its first stage."""
    patch = (2 ** (stages - 1),) * 3
    strides = ((1, 1, 1), *((2, 2, 2),) * (stages - 1))
    return ModelPlan(
        "dynunet", LABELS, 1, patch, (1.0, 1.0, 1.0), patch, levels=0, kernels=((3, 3, 3),) * stages, strides=strides
    )


def delta_bytes(model: GlobalModel, method: Method) -> int:
    """Size of a delta after every parameter that the method lets move by its last epoch has moved."""
    network = build_network(model.plan, model.weights)
    method.prepare(network, torch.zeros(1, 1, *(2 * size for size in model.plan.patch)))
    for epoch in range(1, EPOCHS + 1):
        method.advance(network, epoch, EPOCHS)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(1e-3 * torch.randn_like(parameter))
    weights = canonical_weights(model.plan, model.weights)
    tuned = canonical_weights(model.plan, plain_weights(network))
    updates = take_difference(weights, tuned, method.factors(network))
    dice = dict.fromkeys(("mean", *LABELS), 0.5)
    facts = DeltaFacts("Brain", model.model_id, "1", digest_weights(weights), "full", 4, LABELS, dice, dice)
    return len(encode_delta(updates, facts, Ed25519PrivateKey.generate()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=6)
    parser.add_argument("--rank", type=int, default=8)
    wanted = parser.parse_args()
    torch.manual_seed(0)
    plan = large_plan(wanted.stages)
    weights = dict(build_network(plan).state_dict())
    made = GlobalModel(UUID(int=7), 1, plan, weights, stock_metadata(plan), stock_sources(plan))
    with tempfile.TemporaryDirectory() as folder:
        write_model(made, Path(folder) / "a.model")
        whole = (Path(folder) / "a.model").stat().st_size
    numbers = sum(tensor.numel() for tensor in canonical_weights(plan, weights).values())
    print(f"{numbers / 1e6:.1f} million numbers, {whole / 1e6:.1f} MB")
    for name, method, target in (
        (f"LoRA of rank {wanted.rank}", LowRankAdaptation(rank=wanted.rank), 0.02),
        ("gradual unfreezing", GradualUnfreezing(), 0.25),
    ):
        size = delta_bytes(made, method)
        print(f"{name}: {size / 1e6:.2f} MB, {size / whole:.2%} of the model (target {target:.0%})")
