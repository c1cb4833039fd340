"""One training shared by several processes, on one machine or on more, as `torchrun` starts them.

Terms: the *first* process (rank 0) is the one that plans, writes and talks; a *document* is a value that JSON can hold.
PyTorch does the work: its DistributedDataParallel averages gradients, over gloo on CPUs and nccl on GPUs.

Invariants
- Without torchrun, or with one process, torch.distributed is not touched and nothing is sent anywhere.
- Whatever ends the block of `join_processes`, the group is left. One that ends early is noticed by the others at their
  next exchange, or when torchrun, which the processes must not outlive, ends them; after half an hour at the latest.
- One failure is told once: by the first process in which it shows. The others end with code 1 and say nothing.
- What is exchanged is JSON and sums of numbers, never a pickle.
"""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from dafne_dante.errors import DanteError, SettingsError, TrainingError
from dafne_dante.training.hardware import choose_device

__all__ = ["ALONE", "Processes", "join_processes", "started_processes"]

_TIMEOUT = timedelta(minutes=30)
_FAILURES = "failures"
_MOST_PROCESSES = 1 << 16

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Processes:
    """The processes of one training, as one of them sees them.

    Attributes:
        rank: the number of this process, from 0.
        count: how many there are.
        here: the number of this process among those of its machine; its GPU, where there are any.
        neighbours: how many of them run on this machine.
        parent: id of the torchrun that started this process; 0 where it may outlive who started it.
    """

    rank: int = 0
    count: int = 1
    here: int = 0
    neighbours: int = 1
    parent: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process plans, writes and talks."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return choose_device(self.here)

    def part(self, samples: int) -> slice:
        """Which of the samples of a whole batch this process has; TrainingError where there are too few for all."""
        if samples < self.count:
            raise TrainingError(
                f"expected a batch of at least one patch a process, found {samples} patches for {self.count} "
                "processes; start fewer of them"
            )
        return slice(samples * self.rank // self.count, samples * (self.rank + 1) // self.count)

    def spread(self, network: nn.Module) -> nn.Module:
        """The network itself, or what averages the gradients of its parameters over the processes, now as they are."""
        if self.count == 1:
            return network
        with _spoken():
            return DistributedDataParallel(
                network, device_ids=[self.device] if self.device.type == "cuda" else None, gradient_as_bucket_view=True
            )

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of each number over the processes; same shape, dtype and device."""
        if self.count > 1:
            tensor = tensor.clone()
            with _spoken():
                distributed.all_reduce(tensor)
        return tensor

    def gather(self, document: Any) -> list[Any]:
        """The documents of all processes, by rank; every process must ask."""
        if self.count == 1:
            return [document]
        content = torch.frombuffer(bytearray(json.dumps(document).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        with _spoken():
            distributed.all_gather(sizes, torch.tensor([len(content)]))
            longest = int(max(sizes))
            padded = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
            distributed.all_gather(padded, torch.nn.functional.pad(content, (0, longest - len(content))))
        return [
            json.loads(one[: int(size)].numpy().tobytes().decode()) for one, size in zip(padded, sizes, strict=True)
        ]

    def share_out(self, items: Sequence[_Item], work: Callable[[Sequence[_Item]], list[Any]]) -> list[Any]:
        """What `work` makes of the items, a document for each, in their order; each process works on some of them."""
        parts = self.gather(work(items[self.rank :: self.count]))
        return [parts[number % self.count][number // self.count] for number in range(len(items))]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """The document that `make` gives in the first process; it is called nowhere else."""
        return self.gather(make() if self.is_first else None)[0]

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """For a block in which PyTorch exchanges gradients: TrainingError where a process, or torchrun, is gone."""
        if self.count == 1:
            yield
            return
        if self.parent and os.getppid() != self.parent:
            raise TrainingError("expected torchrun to watch over the processes, found it ended; go on with --resume")
        with _spoken():
            yield


ALONE = Processes()


def started_processes(variables: Mapping[str, str]) -> Processes:
    """The processes that these environment variables tell of; ALONE where they tell of none, or of one.

    Raises:
        SettingsError: they are no numbers, or do not fit together.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not {"RANK", "WORLD_SIZE"} <= variables.keys():
        return ALONE
    try:
        numbers = [int(variables.get(name, usual)) for name, usual in zip(names, "0101", strict=True)]
    except ValueError:
        numbers = [-1] * len(names)
    rank, count, here, neighbours = numbers
    if not (0 <= rank < count <= _MOST_PROCESSES and 0 <= here < neighbours <= count):
        raise SettingsError(f"expected {', '.join(names)} as torchrun sets them, found others; start by torchrun")
    if count == 1:
        return ALONE
    return Processes(rank, count, here, neighbours, os.getppid() if "TORCHELASTIC_RUN_ID" in variables else 0)


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Meet the other processes that torchrun has started, if it has, and leave them at the end of the block.

    Raises:
        SettingsError: torchrun's variables make no sense.
        TrainingError: the others cannot be reached, or there are more processes than GPUs.
        SystemExit: with code 1 and without a word, where another process has told of the failure already.
    """
    processes = started_processes(os.environ)
    if processes.count == 1:
        yield processes
        return
    store = _meet(processes)
    try:
        with _ended_in_order():
            yield processes
    except (DanteError, OSError, KeyboardInterrupt) as error:
        if not _is_first_to_fail(store, processes):
            raise SystemExit(1) from error
        raise
    finally:
        distributed.destroy_process_group()


class _Store(Protocol):
    """Of the group's store: a counter that all processes share."""

    def add(self, key: str, amount: int) -> int: ...


def _meet(processes: Processes) -> _Store:
    """Begin the group; its store serves to agree on who tells of a failure."""
    backend = "gloo"
    if processes.device.type == "cuda":
        if processes.neighbours > torch.cuda.device_count():
            raise TrainingError(
                f"expected a GPU for each process, found {torch.cuda.device_count()} for {processes.neighbours}; "
                "start fewer of them"
            )
        torch.cuda.set_device(processes.device)
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, count = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"expected to reach the other processes, found that it failed ({type(error).__name__}); "
            "start all of them by torchrun"
        ) from error
    kept: _Store = store
    return kept


@contextmanager
def _spoken() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise  # nothing that was exchanged: memory is short, for example
        raise TrainingError(
            "expected all processes of this training, found that another one has ended or cannot be reached; "
            "see what it said, and go on with --resume"
        ) from error


def _is_first_to_fail(store: _Store, processes: Processes) -> bool:
    try:
        return int(store.add(_FAILURES, 1)) == 1
    except RuntimeError:
        # Whoever kept the store is gone: torchrun, which all notice, or the first process, perhaps without a word.
        return processes.is_first or not processes.parent


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let torchrun's SIGTERM end the block as an exception, so that nothing half-written stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
