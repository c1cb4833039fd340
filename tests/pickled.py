"""Pickles for tests: model files in the form that Dafne writes, and hand-made opcodes."""

import pickle
import struct
import uuid
from collections import OrderedDict

import torch

from dafne_dante.models.plan import ModelPlan, plan_to_net_metadata

MODEL_ID = uuid.UUID(int=0x1234_5678_9ABC_DEF0_1234_5678_9ABC_DEF0)
PLAN = ModelPlan("unet3d", ("left", "right"), 1, (16, 32, 32), (2.0, 1.0, 1.0), (20, 40, 40), levels=3)
PLANS = {
    "unet3d": PLAN,
    "unet2d": ModelPlan("unet2d", ("one",), 2, (64, 64), (0.5, 0.5), (70, 70), levels=4, first_channels=16),
    "dynunet": ModelPlan(
        "dynunet", ("a", "b", "é"), 1, (16, 32, 32), (3.0, 1.0, 1.0), (20, 40, 40),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), extra={"more": [None]},
    ),
}  # fmt: skip
INIT = "def init_model():\n    return None\n"


def small_weights():
    generator = torch.Generator().manual_seed(1)
    return {"a.weight": torch.randn(2, 3, generator=generator), "b.bias": torch.randn(3, generator=generator)}


def foreign_document(**changes):
    """The dictionary inside a `.model` file, as Dafne makes it."""
    document = {
        "model_id": MODEL_ID,
        "weights": OrderedDict(small_weights()),
        "timestamp_id": 1_700_000_000,
        "is_delta": False,
        "data_dimensionality": 3,
        "type": "DynamicTorchModel",
        "metadata": {"net_metadata": plan_to_net_metadata(PLAN), "model_name": "unet", "ewc_data": None},
        "init_model_function": INIT,
        "incremental_learn_function": None,
    }
    return {**document, **changes}


def foreign_metadata(**changes):
    return {**foreign_document()["metadata"], **changes}


def foreign_file(protocol=4, **changes):
    return pickle.dumps(foreign_document(**changes), protocol=protocol)


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def binary(value):
    return b"B" + struct.pack("<I", len(value)) + value


def file_with(fragment, key="metadata"):
    """A file whose dictionary has one entry: the value that the opcodes of `fragment` leave on the stack."""
    return b"\x80\x04}(" + text(key) + fragment + b"u."


def file_with_other(key, fragment):
    """A whole model file whose dictionary gives `key` the value that the opcodes of `fragment` leave."""
    return foreign_file()[:-2] + text(key) + fragment + b"u."


def storage_stream(claim=b"ctorch\nFloatStorage\n", length=3, stated=None, values=b"\0" * 12, first=None, note=""):
    """A torch storage stream; every part can be replaced."""
    magic = first or b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    system = b"\x80\x02}" + text("little_endian") + b"\x88s" + text("note") + text(note) + b"s."
    count = b"\x8a\x08" + struct.pack("<q", length)
    identity = b"\x80\x02(" + text("storage") + claim + text("7") + text("cpu") + count + b"NtQ."
    keys = b"\x80\x02]" + text("7") + b"a."
    return magic + b"\x80\x02M\xe9\x03." + system + identity + keys + struct.pack("<q", stated or length) + values


def storage(stream):
    return b"ctorch.storage\n_load_from_bytes\n" + binary(stream) + b"\x85R"


def tensor(stored, offset=0, shape=(3,), strides=(1,)):
    axes = b"".join(pickle.dumps(value, protocol=2)[2:-1] for value in (offset, shape, strides))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + axes + b"\x89ccollections\nOrderedDict\n)RtR"
