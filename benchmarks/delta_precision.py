"""Bytes, error and Dice of each encoding of a delta, on made-up heads: `python benchmarks/delta_precision.py`.

A small 3D U-Net learns one scanner, is fine-tuned to another by each method, and its update is stored with the
encodings that `delta.precision` chooses from. Prints one line a method and encoding; about a minute on one core.
"""

import sys
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import METHOD_NAMES, method_named
from dafne_dante.delta.decode import describe_delta
from dafne_dante.delta.difference import WeightUpdate, apply_updates, dense_value, take_difference
from dafne_dante.delta.encode import DeltaFacts, encode_delta, updates_as_sent
from dafne_dante.delta.precision import Precision
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import digest_weights
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from phantoms import LABELS, make_case, tiny_plan

PLAN = tiny_plan(first_channels=16)
PRECISIONS: tuple[Precision, ...] = ("auto", "float16")


def train(network, method, cases, epochs):
    """Fine-tune the network in place; the last case chooses the epoch."""
    prepared = prepare_cases(cases[:-1], PLAN), prepare_cases(cases[-1:], PLAN)
    fit(network, PLAN, method, *prepared, recipe=Recipe(epochs=epochs, steps_per_epoch=12, learning_rate=5e-3))


def squared_distance(found, expected, base):
    """Squared L2 distance between two lists of updates of the same weights, and the second one's squared length."""
    lengths = [0.0, 0.0]
    for one, other in zip(found, expected, strict=True):
        shape = tuple(base[other.weight].shape)
        wanted = dense_value(other, shape)
        lengths[0] += float((dense_value(one, shape) - wanted).square().sum())
        lengths[1] += float(wanted.square().sum())
    return lengths


def main() -> None:
    """Train, tune and print the table."""
    torch.manual_seed(0)
    network = build_network(PLAN)
    train(network, method_named("full"), [make_case(seed) for seed in range(5)], 8)
    base = plain_weights(network)
    base_bytes = sum(tensor.numel() * tensor.element_size() for tensor in base.values())
    shifted = [make_case(seed, bright=(60.0, 150.0), noise=15.0) for seed in range(20, 29)]
    test = shifted[4:]
    print(f"model {base_bytes} bytes; Dice on the other scanner before: {evaluate(base, test):.4f}")
    for name in METHOD_NAMES:
        tuned_network, method = build_network(PLAN, base), method_named(name)
        train(tuned_network, method, shifted[:4], 8)
        tuned = plain_weights(tuned_network)
        updates = take_difference(base, tuned, method.factors(tuned_network))
        report(name, base, updates, evaluate(tuned, test), test)


def report(name: str, base, updates: tuple[WeightUpdate, ...], dice: float, test) -> None:
    """One line for each encoding of the updates."""
    blank = {"mean": None, **dict.fromkeys(LABELS)}
    facts = DeltaFacts(
        "", "00000000-0000-4000-8000-000000000000", "0", digest_weights(base), name, 3, LABELS, blank, blank
    )  # fmt: skip
    for precision in PRECISIONS:
        sent = updates_as_sent(updates, precision=precision)
        error, length = squared_distance(sent, updates, base)
        content = encode_delta(updates, facts, Ed25519PrivateKey.generate(), precision=precision)
        stored = sum(row["bytes"] for row in describe_delta(content)["weights"])
        change = evaluate(apply_updates(base, sent), test) - dice
        print(
            f"{name:20} {precision:8} file {len(content):8} tensors {stored:8} "
            f"error {(error / length) ** 0.5:.2e} Dice {dice:.4f} change {change:+.5f}"
        )


def evaluate(weights, cases) -> float:
    """Mean Dice of weights on cases."""
    return evaluate_cases(build_network(PLAN, weights), PLAN, cases)["mean"] or 0.0


if __name__ == "__main__":
    main()
