"""Dafne's own store of models, with this site's improved model in place of the global one where there is one.

Facts, from reading Dafne 2.1.0a0 and dafne-dl 2.0.2b2: a provider's `load_model(name, progress, force_download,
timestamp)` gives a model object, or None; the object has `model_id`, `metadata`, `get_weights()` and `set_weights()`.
From a server, `metadata` also holds the type's whole answer to `info_model`, `latest_timestamp` among it.

Invariants
- Dafne's provider is asked first, as ever; only the weights of what it gave are replaced, by ours of the same family
  and of the same names and shapes. Nothing is executed that Dafne would not have executed.
- A global model that is newer than any that the improved one was compared with is given as it is, until the comparison
  says what to use (`plugin.local.carrying`).
- A model of a version that somebody asked for, a model of Keras, one of another family or a damaged improved one: what
  Dafne gave is given, and it is said why.
- Everything else that is asked of the provider goes to Dafne's own; Dafne's cache of models is not touched.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from dafne_dante.config import Settings
from dafne_dante.errors import ModelError
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.model_plan import plan_of
from dafne_dante.host.guarding import Guard
from dafne_dante.models.file import read_model
from dafne_dante.plugin.local.shelf import local_shelf
from dafne_dante.plugin.local.using import local_model

__all__ = ["SiteFirstProvider", "is_known"]

_TIMESTAMP_PLACE = 2
_DIGITS = re.compile(r"[0-9]{1,20}")


class SiteFirstProvider:
    """Wraps a provider of Dafne's.

    Args:
        say: is told, in one sentence, which model is used, or why not the site's.
        newer: is told a type and its global version when that is newer than what the improved one was compared with.
        seen: is told every model that was loaded, and returns at once.
    """

    def __init__(
        self,
        provider: Any,
        settings: Settings,
        say: Callable[[str], None],
        *,
        newer: Callable[[str, str], None] = lambda model_type, version: None,
        seen: Callable[[str, Any], None] = lambda name, model: None,
    ) -> None:
        self._provider, self._settings, self._say = provider, settings, say
        self._newer, self._seen = newer, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def load_model(self, model_name: str, *arguments: Any, **options: Any) -> Any:
        """As Dafne's own, see above; errors are Dafne's own."""
        model = self._provider.load_model(model_name, *arguments, **options)
        if model is not None:
            with Guard(self._say):
                self._seen(model_name, model)
        asked = options.get("timestamp") or (len(arguments) > _TIMESTAMP_PLACE and arguments[_TIMESTAMP_PLACE])
        if model is None or asked:
            return model
        # A name in braces is no place to fill in.
        form = words.GLOBAL_INSTEAD.replace("{model_type}", re.sub("[{}]", "", model_name))
        with Guard(self._say, form):
            self._improve(model_name, model)
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
        version, seen = _version_of(model), local_shelf(self._settings, model_name).state().seen
        if version > int(seen or 0):
            self._newer(model_name, str(version))
            self._say(words.NEWER_USED.format(model_type=model_name, version=version))
            return
        model.set_weights(dict(improved.weights))
        self._say(words.IMPROVED_LOADED.format(model_type=model_name))


def is_known(model: Any) -> bool:
    """Whether it is a torch model whose plan can be read, so that the plugin can improve it."""
    return plan_of(model) is not None


def _version_of(model: Any) -> int:
    """The server's version of what Dafne gave, which it notes in the model's metadata; 0 where it does not."""
    metadata = getattr(model, "metadata", None)
    told = str(metadata.get("latest_timestamp", "")) if isinstance(metadata, Mapping) else ""
    return int(told) if _DIGITS.fullmatch(told) else 0


def _shapes(weights: Any) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes; None for what is no state dict."""
    if not isinstance(weights, Mapping):
        return None
    return {str(name): tuple(getattr(tensor, "shape", ())) for name, tensor in weights.items()}
