"""Files that would run code, or exhaust the memory, when they are loaded the usual way."""

import copyreg
import io
import os
import pickle
import time
import tracemalloc

import numpy as np
import pytest
import torch
from pickled import (
    binary,
    file_with,
    file_with_other,
    foreign_file,
    foreign_metadata,
    storage,
    storage_stream,
    tensor,
    text,
)

from dafne_dante.errors import DamagedModelError, ModelError, UnsafeModelError
from dafne_dante.models.file import parse_model

EXTENSION = 0x7E


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A folder that exists as soon as any of the payloads has run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "canary"


class Payload:
    """Makes the canary when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("canary",)


MKDIR = b"cos\nmkdir\n"
RUN = text("canary") + b"\x85R"
PYTHON = text("__import__('os').mkdir('canary')") + b"\x85R"
LEGACY = io.BytesIO()
torch.save(Payload(), LEGACY, _use_new_zipfile_serialization=False)
ZIPPED = io.BytesIO()
torch.save(Payload(), ZIPPED)

# what the file does -> (its bytes, what the error names, does the usual loader fall for it)
HOSTILE = {
    "reduce": (file_with(MKDIR + RUN), r"os\.mkdir", True),
    "system": (file_with(b"cos\nsystem\n" + text("mkdir canary") + b"\x85R"), r"os\.system", True),
    "posix": (file_with(b"cposix\nsystem\n" + text("mkdir canary") + b"\x85R"), r"posix\.system", os.name == "posix"),
    "eval": (file_with(b"cbuiltins\neval\n" + PYTHON), r"builtins\.eval", True),
    "exec": (file_with(b"cbuiltins\nexec\n" + PYTHON), r"builtins\.exec", True),
    "python 2's name": (file_with(b"c__builtin__\neval\n" + PYTHON), r"__builtin__\.eval", False),
    "getattr": (file_with(b"cbuiltins\ngetattr\n(cos\npath\n" + text("join") + b"tR"), r"builtins\.getattr", False),
    "import": (file_with(b"cbuiltins\n__import__\n" + text("os") + b"\x85R"), r"builtins\.__import__", False),
    "stack global": (file_with(text("os") + text("mkdir") + b"\x93" + RUN), r"os\.mkdir", True),
    "dotted name": (
        file_with(text("collections") + text("OrderedDict.__init__.__call__") + b"\x93)R"),
        r"collections\.OrderedDict\.__init__", False,
    ),
    "inst": (file_with(b"(" + text("canary") + b"ios\nmkdir\n"), r"os\.mkdir", True),
    "inst of an allowed name": (file_with(b"(iuuid\nUUID\n"), "INST", False),
    "obj": (file_with(b"(" + MKDIR + text("canary") + b"o"), r"os\.mkdir", True),
    "obj of an allowed name": (file_with(b"(cuuid\nUUID\no"), "OBJ", False),
    "newobj": (file_with(MKDIR + text("canary") + b"\x85\x81"), r"os\.mkdir", False),
    "newobj_ex": (file_with(MKDIR + text("canary") + b"\x85}\x92"), r"os\.mkdir", False),
    "newobj_ex of an allowed name": (file_with(b"cuuid\nUUID\n)}\x92"), "NEWOBJ_EX", False),
    "extension": (file_with(b"\x82" + bytes([EXTENSION]) + RUN), "EXT1", True),
    "extension of two bytes": (file_with(b"\x83" + bytes([EXTENSION, 0]) + RUN), "EXT2", True),
    "persistent id": (file_with(b"Pcanary\n"), "PERSID", False),
    "binary persistent id": (file_with(text("canary") + b"Q"), "BINPERSID", False),
    "dill import": (file_with(b"cdill._dill\n_import_module\n" + text("os") + b"\x85R"), r"_import_module", False),
    "dill function": (file_with(b"cdill._dill\n_create_function\n)R"), r"_create_function", False),
    "dill code": (file_with(b"cdill._dill\n_create_code\n)R"), r"_create_code", False),
    "dill eval": (file_with(b"cdill._dill\n_eval_repr\n" + PYTHON), r"_eval_repr", False),
    "dill array by another function": (
        file_with(b"cdill._dill\n_create_array\n(cuuid\nUUID\n)}NtR"), r"uuid\.UUID", False,
    ),
    "torch.load": (file_with(b"ctorch\nload\n" + text("canary") + b"\x85R"), r"torch\.load", False),
    "torch.serialization": (file_with(b"ctorch.serialization\nload\n" + RUN), r"torch\.serialization\.load", False),
    "state of a global": (file_with(b"ctorch.storage\n_load_from_bytes\n}" + text("x") + b"Nsb"), "a state", False),
    "state of text": (file_with(text("x") + b"}b"), "a state", False),
    "state of a tensor": (
        file_with(tensor(storage(storage_stream())) + b"}b", key="weights"), "a state for a PendingTensor", False,
    ),
    "call of text": (file_with(text("x") + b")R"), "computed object", False),
    "call of a mere name": (file_with(b"cnumpy\nndarray\n)R"), r"numpy\.ndarray", False),
    "top level": (b"\x80\x04" + MKDIR + RUN + b".", r"os\.mkdir", True),
    "as a key": (b"\x80\x04}" + MKDIR + RUN + b"Ns.", r"os\.mkdir", True),
    "after the dictionary's end": (file_with(b"N")[:-1] + b"0" + MKDIR + RUN + b".", "POP", True),
    "in a torch stream": (file_with(storage(LEGACY.getvalue())), r"posix\.mkdir|nt\.mkdir", True),
    "instead of a torch stream": (
        file_with(storage(b"\x80\x02" + MKDIR + RUN + b".")), r"os\.mkdir", True,
    ),
    "as a storage's class": (file_with(storage(storage_stream(claim=MKDIR + RUN))), r"os\.mkdir", True),
    "as a torch stream's magic": (
        file_with(storage(storage_stream(first=b"\x80\x02" + MKDIR + RUN + b"."))), r"os\.mkdir", True,
    ),
    "in a torch stream in a torch stream": (
        file_with(storage(storage_stream(claim=b"ctorch.storage\n_load_from_bytes\n" + binary(b"N.") + b"\x85R"))),
        r"_load_from_bytes", False,
    ),
    "array of objects": (foreign_file(metadata={"x": np.array([Payload()], dtype=object)}), "objects", True),
    "array of text": (foreign_file(metadata=foreign_metadata(x=np.array(["text"]))), "objects or text", False),
    "in the metadata": (foreign_file(metadata=foreign_metadata(x=[{"y": (Payload(),)}])), "mkdir", True),
    "in the plan": (foreign_file(metadata={"net_metadata": {"patch_size": Payload()}}), "mkdir", True),
    "as a function": (foreign_file(apply_model_function=Payload()), "mkdir", True),
    "as a function by name": (foreign_file(apply_model_function=os.getcwd), "getcwd", False),
    "in the weights": (foreign_file(weights=[Payload()]), "mkdir", True),
    "in another type's file": (foreign_file(type="DynamicDLModel", weights=[Payload()]), "mkdir", True),
}  # fmt: skip


@pytest.mark.parametrize(("content", "named", "works"), HOSTILE.values(), ids=HOSTILE)
def test_nothing_runs_and_the_error_names_it(content, named, works, canary):
    copyreg.add_extension("os", "mkdir", EXTENSION)
    try:
        with pytest.raises(DamagedModelError if named == "POP" else UnsafeModelError, match=named):
            parse_model(content)
        assert not canary.exists()
        if works:  # the payload is real: the usual loader falls for it
            run_the_usual_loader(content)
            assert canary.exists()
    finally:
        copyreg.remove_extension("os", "mkdir", EXTENSION)


def run_the_usual_loader(content):
    try:
        pickle.loads(content)
    except Exception as error:
        print(f"the payload ran, then the loader failed: {error}")


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(protocol, canary):
    with pytest.raises(UnsafeModelError, match="mkdir"):
        parse_model(pickle.dumps(Payload(), protocol))
    assert not canary.exists()


def test_zip_streams_of_torch_are_not_opened(canary):
    with pytest.raises(ModelError):
        parse_model(file_with(storage(ZIPPED.getvalue())))
    assert not canary.exists()


def test_messages_show_no_control_characters():
    with pytest.raises(UnsafeModelError) as caught:
        parse_model(file_with(text("\x1b[2J") + text("x" * 10_000) + b"\x93"))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def doubled_lists(levels):
    """A list of twice the list below, and so on: 2 ** levels values once written out."""
    return b"](" * levels + b"]" + b"".join(bytes([ord("q"), n, ord("h"), n, ord("e")]) for n in range(levels))


HUGE = (1 << 40).to_bytes(8, "little")
SIZE = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
FLOAT = b"cnumpy\ndtype\n(" + text("f8") + b"\x89\x88tR"
ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85C\x01btR"
STORED = storage(storage_stream())
SHARED = storage(storage_stream(length=50_000, values=b"\0" * 200_000))
AGAIN = tensor(b"h\xc8", shape=(50_000,))
LOAD = b"ctorch.storage\n_load_from_bytes\nh\xc8\x85R"
BOMBS = {
    "bytes": ("metadata", b"\x8e" + HUGE),
    "bytes of four gigabytes": ("metadata", b"B\xff\xff\xff\xff"),
    "bytearray": ("metadata", b"\x96" + HUGE),
    "text": ("metadata", b"\x8d" + HUGE),
    "frame and text": ("metadata", b"\x95" + HUGE + b"\x8d" + HUGE),
    "memo": ("metadata", b"}r\xff\xff\xff\xffj\xfe\xff\xff\xff"),
    "storage": ("weights", tensor(storage(storage_stream(length=1 << 40)))),
    "storage that states another length": ("weights", tensor(storage(storage_stream(stated=1 << 40)))),
    "storage of no length": ("weights", tensor(storage(storage_stream(length=-1)))),
    "tensor": ("weights", tensor(STORED, shape=(1 << 40,))),
    "tensor that repeats one value": ("weights", tensor(STORED, shape=(1 << 20, 1 << 20), strides=(0, 0))),
    "tensor behind its storage": ("weights", tensor(STORED, offset=1 << 40)),
    "tensor one value too long": ("weights", tensor(STORED, offset=1)),
    "tensor before its storage": ("weights", tensor(STORED, offset=-1)),
    "tensor with backward strides": ("weights", tensor(STORED, strides=(-1,))),
    "tensor of a hundred axes": ("weights", tensor(STORED, shape=(1,) * 100, strides=(1,) * 100)),
    "many views of one storage": (
        "weights",
        b"}(" + text("w") + tensor(SHARED + b"q\xc8", shape=(50_000,))
        + b"".join(text(f"w{number}") + AGAIN for number in range(2000)) + b"u",
    ),
    "array": ("metadata", ARRAY + b"(K\x01" + SIZE + b"\x85" + FLOAT + b"\x89C\0tb"),
    "scalar": ("metadata", b"cnumpy._core.multiarray\nscalar\n" + FLOAT + b"C\0\x86R"),
    "dtype with a shape": ("metadata", FLOAT + b"(K\x03" + text("<") + SIZE + b"NNJ\xff\xff\xff\xffK\0K\0tb"),
    "nested lists": ("metadata", b"}" + text("x") + b"]" * 50_000 + b"a" * 49_999 + b"s"),
    "nested tuples": ("metadata", b"}" + text("x") + b")" + b"\x85" * 50_000 + b"s"),
    "lists of the same list": ("metadata", b"}" + text("x") + doubled_lists(30) + b"s"),
    "wide lists of the same text": (
        "metadata",
        b"}" + text("x") + b"](" + text("a" * 100_000) + b"q\xc8" + b"h\xc8" * 100_000 + b"es",
    ),
    "a dictionary in itself": ("metadata", b"}q\xc8" + text("x") + b"h\xc8s"),
    "a million opcodes": ("metadata", b"}" + text("x") + b"](" + b"N" * 1_000_000 + b"es"),
    "text in many streams": (
        "metadata",
        b"}" + text("x") + b"](" + binary(storage_stream(note="a" * 100_000)) + b"q\xc8" + LOAD * 20_000 + b"es",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("key", "fragment"), BOMBS.values(), ids=BOMBS)
def test_claims_cost_neither_memory_nor_time(key, fragment):
    content = file_with_other(key, fragment)
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            parse_model(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * 1024**2
    assert time.process_time() - began < 20


def test_the_bombs_parts_are_readable_without_the_bomb():
    """The same opcodes with honest numbers give a model, so the refusals above are for the claims."""
    honest = b"}(" + text("a") + tensor(STORED) + text("b") + tensor(SHARED + b"q\xc8", shape=(50_000,)) + b"u"
    read = parse_model(file_with_other("weights", honest))
    assert {name: tuple(found.shape) for name, found in read.weights.items()} == {"a": (3,), "b": (50_000,)}
    array = ARRAY + b"(K\x01K\x01\x85" + FLOAT + b"\x89C\x08" + b"\0" * 8 + b"tb"
    metadata = foreign_metadata(x=[[[]]])
    assert parse_model(foreign_file(metadata=metadata)).metadata["x"] == [[[]]]
    nested = pickle.dumps(metadata, protocol=2)[2:-2] + text("y") + array + b"u"
    assert parse_model(file_with_other("metadata", nested)).metadata["y"] == [0.0]
