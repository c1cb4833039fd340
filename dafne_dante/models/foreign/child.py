"""The child process: takes a request on its standard input, isolates itself, runs the model's code, answers, ends.

Invariants: isolation comes before the first foreign line, and before torch is loaded; foreign code cannot print,
because standard output is the answer's and is put aside; the answer is a frame, whatever happened.
"""

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

from dafne_dante.models.foreign.isolation import IsolationError, Limits, isolate

__all__ = ["main"]

_ANSWER, _ERRORS = 1, 2
_PACKAGE = Path(__file__).resolve().parents[2]


def main() -> None:
    """Serve one request."""
    answer = os.dup(_ANSWER)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, _ANSWER)
    os.dup2(nothing, _ERRORS)
    os.close(nothing)
    request = sys.stdin.buffer.read()
    (length,) = struct.unpack_from("<Q", request)
    limits = Limits(**json.loads(request[8 : 8 + length])["limits"])
    try:
        isolate(limits, _PACKAGE)
    except IsolationError as error:
        text = json.dumps({"isolation": str(error)}).encode()
        _send(answer, struct.pack("<Q", len(text)) + text + struct.pack("<Q", 2) + b"{}")
        return
    _send(answer, _serve(request, limits))


def _serve(request: bytes, limits: Limits) -> bytes:
    """The answer to the request; torch is loaded here, in isolation."""
    import torch  # noqa: PLC0415

    from dafne_dante.models.foreign.frame import pack_frame, unpack_frame  # noqa: PLC0415
    from dafne_dante.models.foreign.running import StageError, build_model, segment_image  # noqa: PLC0415

    torch.set_num_threads(limits.threads)
    torch.manual_seed(0)
    message, tensors = unpack_frame(request, max_message_bytes=len(request))
    image = tensors.pop("image").numpy()
    try:
        model = build_model(message["entries"], message["sources"], _weights(message["weights"], tensors))
        masks = segment_image(model, image, message["spacing_mm"], message["dimensions"])
    except StageError as error:
        return pack_frame({"stage": error.stage, "kind": error.kind, "missing": error.missing}, {})
    found = {str(number): torch.from_numpy(mask.copy()) for number, mask in enumerate(masks.values())}
    return pack_frame({"labels": list(masks)}, found)


def _weights(names: list[list[str]], tensors: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: tensors[f"{part}/{name}"] for name in part_names} for part, part_names in enumerate(names)]


def _send(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    main()
