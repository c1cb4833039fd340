"""Small deltas, and ways to spoil them: a forger with a trusted key, who can sign whatever he likes."""

import copy
from uuid import UUID

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante.adaptation.low_rank import LowRank, factor_shapes
from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.delta.container import Container, StoredTensor, read_container, write_container
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.encode import DeltaFacts, encode_delta
from dafne_dante.delta.signing import public_key_text, sign
from dafne_dante.models.global_model import digest_weights

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = {public_key_text(KEY): "Hospital B"}
MODEL_ID = UUID("0f7d6a4c-0b51-4e0e-9d6f-0d0e5a2f5a11")
UPDATE_ID = UUID("6f1c1a1e-58c5-4b0e-8f3e-3f1d1c2b4a55")
LABELS = ("left", "right")
DICE = {"mean": 0.5, "left": 0.25, "right": None}


def make_base():
    """Weights of a linear layer, a 2D convolution, a bias, a scalar slope, a norm's counter and an untouched weight."""
    draw = torch.Generator().manual_seed(1)
    return {
        "conv.weight": torch.randn(6, 4, 3, 3, generator=draw),
        "conv.bias": torch.randn(6, generator=draw),
        "linear.weight": torch.randn(5, 6, generator=draw),
        "slope": torch.tensor(0.25),
        "norm.num_batches_tracked": torch.tensor(3),
        "still.weight": torch.randn(2, 2, generator=draw),
    }


def low_rank(form, shape, rank, seed=0, scale=2.0, size=0.1):
    draw = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(*axes, generator=draw) * size for axes in factor_shapes(form, shape, rank))
    return LowRank(form, a, b, scale)


def make_updates():
    draw = torch.Generator().manual_seed(2)
    return (
        WeightUpdate("conv.bias", torch.randn(6, generator=draw) * 0.01),
        WeightUpdate("conv.weight", low_rank("lora-channel", (6, 4, 3, 3), 2)),
        WeightUpdate("linear.weight", low_rank("lora-linear", (5, 6), 1)),
        WeightUpdate("slope", torch.tensor(-0.125)),
    )


def make_facts(base=None, **changes):
    facts = {
        "model_type": "Leg", "model_id": MODEL_ID, "base_timestamp": "1700000000",
        "base_sha256": digest_weights(make_base() if base is None else base), "method": "lora", "cases": 7,
        "labels": LABELS, "dice_before": DICE, "dice_after": {"mean": 0.75, "left": 0.75, "right": None},
    }  # fmt: skip
    return DeltaFacts(**{**facts, **changes})


def make_delta(updates=None, *, key=KEY, update_id=UPDATE_ID, **changes):
    return encode_delta(make_updates() if updates is None else updates, make_facts(**changes), key, update_id=update_id)


def forge(content, *, manifest=lambda document: None, tensors=lambda stored: None, key=KEY, header=None):
    """The delta with its manifest and its stored tensors edited in place by the callables, and signed again."""
    container = read_container(content)
    document = copy.deepcopy(parse_canonical(container.metadata["manifest"].encode(), "manifest"))
    stored = dict(container.tensors)
    tensors(stored)
    manifest(document)
    text = canonical_bytes(document)
    metadata = {"manifest": text.decode(), "public_key": public_key_text(key), "signature": sign(key, text)}
    return write_container(Container({**metadata, **(header or {})}, stored))


def replace_numbers(content, name, numbers):
    """The delta with other numbers in the stored tensor `name`, digest and signature right."""

    def edit_tensors(stored):
        old = stored[name]
        filled = torch.full(old.shape, float(numbers)) if isinstance(numbers, float) else numbers
        stored[name] = StoredTensor.from_tensor(filled, old.dtype)

    digests = {}

    def edit_manifest(document):
        document["tensors"][name]["sha256"] = digests["new"]

    def edit_both(stored):
        edit_tensors(stored)
        digests["new"] = stored[name].sha256

    return forge(content, manifest=edit_manifest, tensors=edit_both)
