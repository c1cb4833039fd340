"""The hidden command `measure-step`, which a host starts once for each model type that it shows."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dafne_dante.config import load_settings

__all__ = ["measure_step"]

_MAX_CHARACTERS = 1 << 20


def measure_step(
    model_type: Annotated[str, typer.Option("--type", help="The model's type.")],
    configuration: Annotated[Path, typer.Option(help="The configuration folder.")],
) -> None:
    """Time a training step of the network whose net_metadata come from stdin, and remember it."""
    from dafne_dante.errors import UnsupportedModelError
    from dafne_dante.models.plan import plan_from_net_metadata
    from dafne_dante.plugin.step_times import measure_step as measured
    from dafne_dante.plugin.worker_limits import limit_this_process

    settings = load_settings(configuration)
    try:
        found = json.loads(sys.stdin.read(_MAX_CHARACTERS))
    except (ValueError, RecursionError) as error:
        raise UnsupportedModelError("expected net_metadata as JSON, found something else") from error
    plan = plan_from_net_metadata(found)
    limit_this_process(settings.worker)
    measured(settings, model_type, plan)
