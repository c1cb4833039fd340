"""What the chosen model is: its labels and contrasts, from what Dafne has loaded, else from the server.

Invariants: looking at what is loaded takes no time and changes nothing; asking the server happens away from the thread
that paints, once and without repetitions, since a person waits for the answer; what the server hands out is read safely
and judged as for a job, and stays in the cache that the job then takes it from.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dafne_dante.config import Settings
from dafne_dante.errors import ModelError
from dafne_dante.federation.client import connect
from dafne_dante.models.plan import ModelPlan, plan_from_net_metadata
from dafne_dante.plugin.base_model import base_from_server

__all__ = ["NOT_LOADED", "Loaded", "loaded_model", "newest_plan", "plan_of"]

_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Loaded:
    """Whether Dafne has loaded the model, and its plan; None where it is of a kind that the plugin cannot improve."""

    is_loaded: bool = False
    plan: ModelPlan | None = None


NOT_LOADED = Loaded()


def plan_of(model: Any) -> ModelPlan | None:
    """The plan of one of Dafne's model objects; None for Keras, and for networks that we do not know."""
    metadata = getattr(model, "metadata", None)
    net = metadata.get("net_metadata") if isinstance(metadata, Mapping) else None
    if not isinstance(net, Mapping):
        return None
    try:
        return plan_from_net_metadata(net)
    except ModelError:
        return None


def loaded_model(window: Any, model_type: str) -> Loaded:
    """What Dafne's window has loaded of a type, under whatever variant."""
    for name, model in list(getattr(window, "dl_segmenters", {}).items()):
        if name.split(",")[0].strip() == model_type:
            return Loaded(is_loaded=True, plan=plan_of(model))
    return NOT_LOADED


def newest_plan(settings: Settings, model_type: str, loaded: Loaded) -> ModelPlan:
    """The plan that a job would improve now; what is loaded spares the download, never the question for the server.

    Raises:
        TransportError: the server cannot be reached, refuses the key, or knows no such type.
        ModelError, TrustError: its newest model is none that can be improved, or is not to be trusted.
    """
    quick = replace(settings, retries=0, timeout_s=min(settings.timeout_s, _PATIENCE_S))
    client = connect(quick)
    client.model_info(model_type)
    if loaded.plan is not None:
        return loaded.plan
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "newest.model"
        return base_from_server(client, model_type, place, settings=settings).model.plan
