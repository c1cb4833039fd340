"""The dialog learns of the model from what Dafne has loaded, else from the server, and says what is in the way."""

from types import SimpleNamespace

import pytest

from dafne_dante.config import Settings
from dafne_dante.errors import AccessDeniedError, ServerAnswerError, ServerUnreachableError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.host.dafne_qt.model_plan import NOT_LOADED, Loaded, loaded_model, newest_plan
from dafne_dante.models.file import read_model
from dafne_dante.models.plan import plan_to_net_metadata

TYPE = "Brain"


@pytest.fixture(scope="module")
def site(tmp_path_factory, trained):
    folder = tmp_path_factory.mktemp("plan")
    key = Accounts(folder / "server").add_user("site", access=[TYPE], merge=[])
    shelf = Shelf(folder / "server")
    shelf.add_type(TYPE, {"dafne_dante": {"delta": 1}})
    shelf.publish_copy(TYPE, trained / "base.model")
    with RunningServer(folder / "server") as server:
        yield Settings(folder / "configuration", server=server.url, api_key=key), read_model(trained / "base.model")


def test_the_newest_model_s_labels_come_from_the_server(site):
    settings, model = site
    assert newest_plan(settings, TYPE, NOT_LOADED).labels == model.plan.labels


def test_what_dafne_has_loaded_is_not_fetched_but_the_server_is_asked_all_the_same(site, monkeypatch):
    settings, model = site
    from dafne_dante.federation.client import FederationClient

    monkeypatch.setattr(FederationClient, "download_model", lambda *arguments: pytest.fail("fetched"))
    loaded = Loaded(is_loaded=True, plan=model.plan)
    assert newest_plan(settings, TYPE, loaded) is model.plan
    with pytest.raises(ServerUnreachableError):
        newest_plan(Settings(settings.folder, server="http://127.0.0.1:9/", api_key="k" * 20), TYPE, loaded)
    with pytest.raises(AccessDeniedError, match="key"):
        newest_plan(Settings(settings.folder, server=settings.server, api_key="k" * 20), TYPE, loaded)
    with pytest.raises((ServerAnswerError, AccessDeniedError)):
        newest_plan(settings, "Thigh", loaded)


def test_a_variant_is_its_model_and_keras_has_no_plan(site):
    _, model = site
    known = SimpleNamespace(metadata={"net_metadata": plan_to_net_metadata(model.plan)})
    window = SimpleNamespace(dl_segmenters={"Thigh, Left": known, "Keras": SimpleNamespace(metadata={})})
    assert loaded_model(window, "Thigh").plan.labels == model.plan.labels
    assert loaded_model(window, "Keras") == Loaded(is_loaded=True)
    assert loaded_model(window, "Other") == NOT_LOADED == loaded_model(SimpleNamespace(), "Other")
