"""Dafne's own store of models, with this site's improved model in place of the global one where there is one.

Facts, from reading Dafne 2.1.0a0 and dafne-dl 2.0.2b2: a provider's `load_model(name, progress, force_download,
timestamp)` gives a model object, or None; the object has `model_id`, `metadata`, `get_weights()` and `set_weights()`.

Invariants
- Dafne's provider is asked first, as ever; only the weights of what it gave are replaced, by ours of the same family
  and of the same names and shapes. Nothing is executed that Dafne would not have executed.
- A model of a version that somebody asked for, a model of Keras, one of another family or a damaged improved one: what
  Dafne gave is given, and it is said why.
- Everything else that is asked of the provider goes to Dafne's own; Dafne's cache of models is not touched.
"""

from collections.abc import Callable, Mapping
from typing import Any

from dafne_dante.config import Settings
from dafne_dante.errors import DanteError, ModelError
from dafne_dante.models.file import read_model
from dafne_dante.models.plan import plan_from_net_metadata
from dafne_dante.plugin.local.using import local_model

__all__ = ["SiteFirstProvider", "is_known"]

_TIMESTAMP_PLACE = 2


class SiteFirstProvider:
    """Wraps a provider of Dafne's.

    Args:
        say: is told, in one sentence, which model is used, or why not the site's.
        seen: is told every model that was loaded, and returns at once.
    """

    def __init__(
        self,
        provider: Any,
        settings: Settings,
        say: Callable[[str], None],
        seen: Callable[[str, Any], None] = lambda name, model: None,
    ) -> None:
        self._provider, self._settings, self._say, self._seen = provider, settings, say, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def load_model(self, model_name: str, *arguments: Any, **options: Any) -> Any:
        """As Dafne's own, see above; errors are Dafne's own."""
        model = self._provider.load_model(model_name, *arguments, **options)
        if model is not None:
            self._seen(model_name, model)
        asked = options.get("timestamp") or (len(arguments) > _TIMESTAMP_PLACE and arguments[_TIMESTAMP_PLACE])
        if model is None or asked:
            return model
        try:
            self._improve(model_name, model)
        except DanteError as error:
            self._say(f"{model_name}: the global model is used: {error}")
        return model

    def _improve(self, model_name: str, model: Any) -> None:
        local = local_model(self._settings, model_name)
        if local.file is None:
            return
        improved = read_model(local.file)
        if str(getattr(model, "model_id", "")) != str(improved.model_id):
            raise ModelError("the improved one is of another family; it is kept")
        if _shapes(model.get_weights()) != _shapes(improved.weights):
            raise ModelError("the improved one is another network; it is kept")
        model.set_weights(dict(improved.weights))
        self._say(f"{model_name}: the model that was improved here is used")


def is_known(model: Any) -> bool:
    """Whether it is a torch model whose plan can be read, so that the plugin can improve it."""
    metadata = getattr(model, "metadata", None)
    net = metadata.get("net_metadata") if isinstance(metadata, Mapping) else None
    if not isinstance(net, Mapping):
        return False
    try:
        plan_from_net_metadata(net)
    except ModelError:
        return False
    return True


def _shapes(weights: Any) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes; None for what is no state dict."""
    if not isinstance(weights, Mapping):
        return None
    return {str(name): tuple(getattr(tensor, "shape", ())) for name, tensor in weights.items()}
