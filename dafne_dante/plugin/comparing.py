"""Two models of a type side by side on a kept case, as a page that a person looks at before they choose.

Invariants: nothing is learned, chosen or sent; the page lies in the site's folder of local models, one at a time, as it
shows slices of a patient.
"""

import tempfile
from pathlib import Path

from dafne_dante.annotations.reading import read_case
from dafne_dante.annotations.store.opening import open_case_store, store_key
from dafne_dante.annotations.store.stored import find_stored_studies
from dafne_dante.config import Settings
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import NotEnoughCasesError, StorageError
from dafne_dante.federation.client import connect
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.plugin.collecting import reading_of
from dafne_dante.plugin.local.shelf import local_folder, local_shelf
from dafne_dante.plugin.report.measured import Measurements, pair_measurements
from dafne_dante.plugin.report.page import comparison_page
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device

__all__ = ["GLOBAL", "compare_models"]

GLOBAL = 0
"""In place of a version's number: the global model that the newest improved one comes from."""
_PAGE = "comparison.html"


def compare_models(settings: Settings, model_type: str, case_id: str, before: int, after: int) -> Path:
    """Segment a kept case with two models, and write the page; slow, for a thread that does not paint.

    Args:
        before, after: numbers of improved models, or GLOBAL.

    Returns:
        The page; the next comparison writes over it.

    Raises:
        NotEnoughCasesError: no such case is kept.
        StorageError: there is no such model here, or the disk refuses.
        TransportError: the global model is to be fetched and the server cannot be reached.
        ModelError, AnnotationError, TrustError: a model, the case or the store's key is not as it must be.
    """
    models = [_model(settings, model_type, number) for number in (before, after)]
    key = store_key(settings, say=lambda words: None)
    studies = find_stored_studies(open_case_store(settings, say=lambda words: None)).studies
    study = next((one for one in studies if one.name == case_id), None)
    if study is None:
        raise NotEnoughCasesError("expected the case to be kept here, found that it is not; choose another")
    measured = []
    for model in models:
        case, _ = read_case(study, model.plan.labels, reading_of(settings.annotations, key.case_ids))
        taken = Measurements()
        network = build_network(model.plan, model.weights).to(choose_device())
        evaluate_cases(network, model.plan, [case], on_case=taken.take)
        measured.append(taken.items)
    (pair,) = pair_measurements(*measured)
    page = make_folder(local_folder(settings)) / _PAGE
    write_atomically(page, comparison_page(model_type, pair, _called(before), _called(after)), mode=0o600)
    return page


def _called(number: int) -> str:
    return "global model" if number == GLOBAL else f"improved model {number}"


def _model(settings: Settings, model_type: str, number: int) -> GlobalModel:
    shelf = local_shelf(settings, model_type)
    state = shelf.state()
    if number != GLOBAL:
        version = state.find(number)
        if version is None:
            raise StorageError(f"expected the improved model {number} to be kept here, found that it is not")
        return read_model(shelf.model_path(version))
    if not state.versions:
        raise StorageError("expected an improved model to compare with, found none; improve the model first")
    folder = make_folder(local_folder(settings))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
        destination = Path(scratch) / "global.model"
        return read_model(connect(settings).download_model(model_type, state.versions[-1].base, destination))
