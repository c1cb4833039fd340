"""Stock Dafne's RemoteModelProvider against the embedded server: every public call, over real HTTP."""

import hashlib
import json
import threading
import time
import uuid

import numpy as np
import pytest
import torch

from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.federation.transport import HttpTransport
from dafne_dante.models.build import build_network
from dafne_dante.models.file import parse_model, write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.stock_functions import stock_metadata, stock_sources

pytest.importorskip("dafne_dl")
pytest.importorskip("dafne_inference")
remote = pytest.importorskip("dafne_dl.RemoteModelProvider")

pytestmark = pytest.mark.filterwarnings("ignore")
TYPE = "Brain (2D)"


def make_model(path):
    plan = ModelPlan(
        architecture="unet2d",
        labels=("left", "right"),
        in_channels=1,
        patch=(32, 32),
        spacing_mm=(1.0, 1.0),
        median_shape=(32, 32),
        levels=2,
        first_channels=4,
    )
    torch.manual_seed(3)
    weights = build_network(plan).state_dict()
    write_model(
        GlobalModel(uuid.uuid4(), 1_700_000_000, plan, weights, stock_metadata(plan), stock_sources(plan)), path
    )


class Setting:
    """A running server with one published model, a site with the stock provider, and an operator."""

    def __init__(self, folder):
        self.root, self.folder = folder / "server", folder
        self.accounts, self.shelf = Accounts(self.root), Shelf(self.root)
        self.shelf.add_type(TYPE, {"categories": ["left", "right"], "dafne_dante": {"delta": 1}})
        self.key = self.accounts.add_user("site", access=[TYPE])
        self.operator_key = self.accounts.add_user("operator", merge=[TYPE])
        make_model(folder / "first.model")
        self.version = self.shelf.publish_copy(TYPE, folder / "first.model")
        (folder / "temporary").mkdir()
        self.server = RunningServer(self.root)

    def provider(self, key=None):
        return remote.RemoteModelProvider(
            self.folder / "models", self.server.url, self.key if key is None else key, str(self.folder / "temporary")
        )

    def operator(self):
        return FederationClient(HttpTransport(self.server.url, self.operator_key))

    def calls(self):
        return [call for _, _, call, _ in self.accounts.logged()]


@pytest.fixture
def setting(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "TIME_BETWEEN_RETRIES", 0.05)
    made = Setting(tmp_path)
    with made.server:
        yield made


def wait_for_uploads():
    for thread in threading.enumerate():
        if getattr(thread, "_target", None) in (remote.upload_model, remote.upload_data):
            thread.join(60)


def test_models_are_listed_and_described(setting):
    provider = setting.provider()
    assert provider.url_base == setting.server.url  # its look for a redirect found none
    assert provider.available_models() == [TYPE]
    details = provider.model_details(TYPE)
    assert details["latest_timestamp"] == setting.version
    assert details["hashes"] == {
        setting.version: hashlib.sha256((setting.folder / "first.model").read_bytes()).hexdigest()
    }
    assert json.loads((setting.folder / "models" / f"{TYPE}.json").read_text())["categories"] == ["left", "right"]


def test_a_model_is_downloaded_checked_loaded_and_then_taken_from_the_cache(setting):
    provider, progress = setting.provider(), []
    first = provider.load_model(TYPE, lambda now, total: progress.append((now, total)))
    size = (setting.folder / "first.model").stat().st_size
    assert progress[-1] == (size, size)
    assert first.metadata["latest_timestamp"] == setting.version
    second = provider.load_model(TYPE)
    assert setting.calls().count("get_model") == 1
    expected = parse_model((setting.folder / "first.model").read_bytes()).weights
    for loaded in (first, second):
        assert set(loaded.get_weights()) == set(expected)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.get_weights().items())
    cached = setting.folder / "models" / f"{TYPE}_{setting.version}.model"
    cached.write_bytes(cached.read_bytes()[:-1] + b"x")
    assert provider.load_model(TYPE) is not None
    assert provider.load_model(TYPE, force_download=True) is not None
    assert setting.calls().count("get_model") == 3


def test_an_older_version_is_loaded_by_its_number(setting):
    setting.shelf.publish_copy(TYPE, setting.folder / "first.model")
    assert setting.provider().load_model(TYPE, timestamp=int(setting.version)) is not None
    assert (setting.folder / "models" / f"{TYPE}_{setting.version}.model").is_file()
    assert setting.provider().load_model(TYPE, timestamp=17) is None


@pytest.mark.parametrize("chunk_bytes", [10**9, 5_000])
def test_an_uploaded_model_waits_for_the_operator_unchanged(setting, monkeypatch, chunk_bytes):
    monkeypatch.setattr(remote, "UPLOAD_CHUNK_SIZE", chunk_bytes)
    provider = setting.provider()
    model = provider.load_model(TYPE)
    provider.upload_model(TYPE, model, 0.75)
    wait_for_uploads()
    (upload,) = setting.operator().pending_uploads(TYPE)
    assert upload.username == "site"
    assert upload.size > 3 * 5_000
    fetched = setting.operator().download_upload(TYPE, upload.filename, setting.folder / "fetched.model")
    expected = parse_model((setting.folder / "first.model").read_bytes())
    found = parse_model(fetched.read_bytes())
    assert found.model_id == expected.model_id
    assert all(torch.equal(tensor, expected.weights[name]) for name, tensor in found.weights.items())
    assert setting.calls().count("upload_model") == 1
    assert list((setting.folder / "temporary").iterdir()) == []


def test_two_uploads_at_once_are_both_kept(setting):
    provider = setting.provider()
    model = provider.load_model(TYPE)
    for stamp in (1, 2):
        model.timestamp_id = stamp
        provider.upload_model(TYPE, model, 0.5)
    wait_for_uploads()
    assert len(setting.operator().pending_uploads(TYPE)) == 2


def test_a_message_is_logged(setting):
    setting.provider().log("segmented a study")
    assert setting.accounts.logged()[-1][1:] == ("site", "log", "segmented a study")


def test_images_are_refused_and_the_provider_goes_on(setting, capsys):
    """Images stay where they were made; the stock provider tries three times in its own thread and gives up."""
    provider = setting.provider()
    begin = time.monotonic()
    provider.upload_data({"data": np.zeros((4, 4)), "resolution": np.ones(2)})
    assert time.monotonic() - begin < 5
    wait_for_uploads()
    told = capsys.readouterr().out
    assert told.count("status code: 403") == 3
    assert told.count("this server takes no data, only models") == 3
    assert list((setting.folder / "temporary").iterdir()) == []
    assert [path.name for path in setting.root.rglob("*.npz")] == []
    assert provider.available_models() == [TYPE]


def test_a_wrong_key_is_told_as_the_stock_provider_tells_it(setting):
    provider = setting.provider("wrong")
    with pytest.raises(PermissionError):
        provider.available_models()
    with pytest.raises(PermissionError):
        provider.log("hello")
    assert provider.model_details(TYPE) is None
    assert provider.load_model(TYPE) is None


def test_a_type_without_permission_or_existence_is_nothing(setting):
    for name in ("Leg", "a_b"):
        assert setting.provider().load_model(name) is None
