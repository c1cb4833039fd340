"""Tasks in processes of their own, a few at a time.

Terms: a *task* is a function with its arguments, all of which can be pickled; its *name* is for messages.

Invariants
- Each task has a fresh process, forked from one that has torch already (where the system can fork), so that its peak of
  memory is its own and its start costs little; it has one thread.
- A task that fails, or whose process is gone, is told and costs nobody else anything. An error that is none of ours
  is printed by its process.
- When the caller stops, however it does, its processes stop: each watches for its parent's end.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

import torch

from dafne_dante.errors import DanteError

__all__ = ["Task", "TaskResult", "run_tasks"]

_PRELOADED = ["dafne_dante.benchmark.own_methods", "dafne_dante.benchmark.pretraining"]


@dataclass(frozen=True, eq=False)
class Task:
    """What to do."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class TaskResult:
    """What the function returned, or why it could not, in words."""

    task: Task
    value: Any = None
    fault: str = ""


@dataclass(frozen=True, eq=False)
class _Running:
    task: Task
    process: Any
    answers: Connection


def run_tasks(tasks: Iterable[Task], *, jobs: int) -> Iterator[TaskResult]:
    """The results as they come; a task is taken from the iterable when there is a process for it."""
    waiting = iter(tasks)
    running: list[_Running] = []
    context = _context()
    try:
        while True:
            while len(running) < jobs and (task := next(waiting, None)) is not None:
                running.append(_start(context, task))
            if not running:
                return
            ready = wait([one.answers for one in running])
            for one in [one for one in running if one.answers in ready]:
                running.remove(one)
                yield _finish(one)
    finally:
        for one in running:
            one.process.kill()
            one.process.join()


def _context() -> ForkServerContext | SpawnContext:
    if "forkserver" not in multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _start(context: ForkServerContext | SpawnContext, task: Task) -> _Running:
    answers, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(send, task.function, task.arguments), daemon=True)
    process.start()
    send.close()  # so that its end is seen when the process is gone
    return _Running(task, process, answers)


def _finish(one: _Running) -> TaskResult:
    try:
        value, fault = one.answers.recv()
    except EOFError:
        one.process.join()
        return TaskResult(one.task, fault=_how_it_ended(one.process.exitcode))
    one.process.join()
    return TaskResult(one.task, value, fault)


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"its process was killed by signal {-code}; is memory short?"
    return f"its process ended with exit code {code}; what it said is above"


def _work(send: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """What the process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends its processes
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        send.send((function(*arguments), ""))
    except DanteError as error:
        send.send((None, str(error)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
