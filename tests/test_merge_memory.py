"""A whole merge takes as much memory for a hundred updates as for one."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from phantoms import LABELS, tiny_plan
from test_operator import DICE, TYPE

from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.encode import DeltaFacts, encode_delta
from dafne_dante.delta.signing import public_key_text, trust_key
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.build import build_network
from dafne_dante.models.file import write_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.models.stock_functions import stock_metadata, stock_sources

UPDATES = 100
LEAST_BYTES = 1_500_000
"""Of one update: a hundred that stay in memory are then a third of what a merge takes, and ten a tenth."""


def small_model():
    """A network whose updates are long beside what a merge of one takes, and quick to add up."""
    plan = replace(tiny_plan(), first_channels=32)
    torch.manual_seed(0)
    weights = dict(build_network(plan).state_dict())
    return GlobalModel(UUID(int=7), 1_700_000_000, plan, weights, stock_metadata(plan), stock_sources(plan))


def queue(folder, model, contents):
    """An operator's folder and a server's with the model and these uploads."""
    shelf = Shelf(folder / "server")
    shelf.add_type(TYPE, {"dafne_dante": {"delta": 1}})
    write_model(model, folder / "first.model")
    shelf.publish(TYPE, folder / "first.model")
    for number, content in enumerate(contents):
        (folder / "server" / "models" / TYPE / "uploads" / f"{number + 1}_site{number}.model").write_bytes(content)


@pytest.fixture
def queues(tmp_path):
    model, digest = small_model(), ""
    digest = digest_weights(model.weights)
    facts = DeltaFacts(TYPE, model.model_id, "1", digest, "full", 4, LABELS, DICE, DICE)
    names = [name for name, tensor in model.weights.items() if tensor.is_floating_point()]
    contents = []
    for number in range(UPDATES):
        key = Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
        trust_key(tmp_path / "trusting", public_key_text(key), f"site {number}")
        draw = torch.Generator().manual_seed(number)
        updates = [WeightUpdate(name, 1e-3 * torch.randn(model.weights[name].shape, generator=draw)) for name in names]
        contents.append(encode_delta(updates, facts, key, precision="float16"))
    assert min(map(len, contents)) > LEAST_BYTES
    folders = []
    for count in (1, 10, UPDATES):
        folders.append(tmp_path / f"{count}")
        queue(folders[-1], model, contents[:count])
        shutil.copytree(tmp_path / "trusting", folders[-1] / "operator")
    return folders


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read as Linux tells it")
@pytest.mark.timeout(300)
def test_one_ten_and_a_hundred_updates_take_the_same_memory(queues):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    program = Path(__file__).with_name("merging_in_memory.py")
    done = subprocess.run(
        [sys.executable, program, *queues], env=environment, capture_output=True, check=True, timeout=280
    )
    merged, peaks = zip(*json.loads(done.stdout), strict=True)
    assert merged == (1, 10, UPDATES)
    assert max(peaks) < 1.1 * min(peaks), peaks
