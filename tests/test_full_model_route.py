"""Where a type takes no deltas, an update leaves as a full model, and only where the site allows it."""

from dataclasses import replace
from uuid import UUID

import pytest
import torch
from deltas import KEY
from federations import Federation
from merging import untrained_model

from dafne_dante.config import Settings, load_settings, write_settings
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.encode import DeltaFacts, encode_delta
from dafne_dante.errors import SettingsError, TransportError, UploadUnknownError
from dafne_dante.federation.full_models import is_full_model
from dafne_dante.federation.model_signature import BLOCK, sign_model
from dafne_dante.federation.outbox import open_outbox
from dafne_dante.federation.outbox_states import WORDS
from dafne_dante.federation.sending import dispatch_for
from dafne_dante.models.file import parse_model, write_model
from dafne_dante.models.global_model import digest_weights

TYPE = Federation.model_type
MODEL = untrained_model()
NAME = next(name for name, tensor in MODEL.weights.items() if tensor.dim() > 1)


def delta(model=MODEL, amount=0.01):
    dice = dict.fromkeys(["mean", *model.plan.labels], 0.5)
    facts = DeltaFacts(
        TYPE, model.model_id, "1", digest_weights(model.weights), "full", 4, model.plan.labels, dice, dice
    )
    updates = [WeightUpdate(NAME, torch.full_like(model.weights[NAME], amount))]
    return encode_delta(updates, facts, KEY, precision="float32")


class Site:
    """A site whose type says nothing of deltas."""

    def __init__(self, root):
        self.root, self.federation = root, Federation(root / "server")
        self.federation.shelf.add_type(TYPE, {"categories": ["a"]})
        self.publish(sign_model(MODEL, KEY, model_type=TYPE, number=1))

    def publish(self, model):
        write_model(model, self.root / "next.model")
        self.federation.shelf.publish(TYPE, self.root / "next.model")

    def settings(self, **changes):
        return Settings(folder=self.root / "site", server=self.federation.url, **changes)

    def send(self, content, client=None, **changes):
        settings = self.settings(**changes)
        outbox = open_outbox(settings)
        entry = outbox.queue(content, server=self.federation.url, dice=0.5, trigger="command")
        return dispatch_for(settings, outbox, client or self.federation.client(), self.federation.url).send_one(
            entry.update_id
        )

    def arrived(self):
        return [
            parse_model(self.federation.shelf.upload_path(TYPE, one.filename).read_bytes())
            for one in self.federation.uploads()
        ]


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    with made.federation.server:
        yield made


def test_the_stock_average_moves_the_newest_model_by_the_update(site):
    moved = replace(MODEL, weights={name: tensor + 0.5 for name, tensor in MODEL.weights.items()})
    site.publish(sign_model(moved, KEY, model_type=TYPE, number=2))
    tried = site.send(delta(), allow_full_model=True)
    assert (tried.error, tried.entry.state) == (None, "sent")
    (upload,) = site.arrived()
    assert (upload.model_id, upload.plan) == (MODEL.model_id, MODEL.plan)
    assert BLOCK not in upload.metadata
    for name, tensor in moved.weights.items():
        average = (tensor + upload.weights[name]) / 2
        torch.testing.assert_close(average, tensor + (0.01 if name == NAME else 0.0))
    leaving = next(one for one in open_outbox(site.settings()).audit.records() if one["event"] == "leaving")
    file = site.federation.shelf.upload_path(TYPE, site.federation.uploads()[0].filename).read_bytes()
    assert (leaving["full_model_bytes"], is_full_model(file)) == (len(file), True)


def test_without_leave_it_waits_and_says_why(site):
    tried = site.send(delta())
    assert isinstance(tried.error, TransportError)
    assert (tried.entry.state, tried.entry.why) == ("waiting", "no-deltas")
    assert site.arrived() == []
    again = dispatch_for(
        site.settings(allow_full_model=True),
        open_outbox(site.settings()),
        site.federation.client(),
        site.federation.url,
    ).send_one(tried.entry.update_id)
    assert again.entry.state == "sent"


def test_a_pinned_seal_key_forbids_it(site):
    from test_trusted import KEY as OTHER

    from dafne_dante.delta.signing import public_key_text

    tried = site.send(delta(), allow_full_model=True, seal_key=public_key_text(OTHER))
    assert (tried.entry.state, tried.entry.why, site.arrived()) == ("waiting", "seal-key", [])


@pytest.mark.parametrize("spoilt", ["family", "signature", "shape"])
def test_what_does_not_fit_the_newest_model_stays(site, spoilt):
    model = replace(MODEL, model_id=UUID(int=9)) if spoilt == "family" else MODEL
    if spoilt == "shape":
        model = replace(MODEL, weights={**MODEL.weights, NAME: MODEL.weights[NAME][:, :1].repeat(1, 3, 1, 1, 1)})
    if spoilt == "signature":
        site.send(delta(amount=0.02), allow_full_model=True)
        site.publish(MODEL)
    before = len(site.arrived())
    tried = site.send(delta(model), allow_full_model=True)
    assert (tried.entry.state, tried.entry.why, tried.entry.next_try_s) == ("waiting", "no-form", None)
    assert tried.entry.told
    assert len(site.arrived()) == before


def test_a_lost_answer_is_not_followed_by_a_second_one(site):
    class Lossy:
        """Takes the file and loses the answer."""

        def __init__(self, client):
            self.model_info, self.download_model, self.upload_really = (
                client.model_info,
                client.download_model,
                client.upload,
            )

        def upload(self, model_type, path, dice, progress=None):
            self.upload_really(model_type, path, dice)
            raise UploadUnknownError("the answer is lost")

    tried = site.send(delta(), Lossy(site.federation.client()), allow_full_model=True)
    assert (tried.entry.state, tried.entry.why, tried.entry.next_try_s) == ("waiting", "unknown-full", None)
    outbox = open_outbox(site.settings(allow_full_model=True))
    dispatcher = dispatch_for(
        site.settings(allow_full_model=True), outbox, site.federation.client(), site.federation.url
    )
    assert dispatcher.send_due() == []
    assert len(site.arrived()) == 1
    assert {"unknown-full", "no-form", "seal-key"} <= WORDS.keys()


def test_the_setting_is_a_switch(tmp_path):
    write_settings(Settings(folder=tmp_path, allow_full_model=True))
    assert load_settings(tmp_path).allow_full_model is True
    (tmp_path / "settings.toml").write_text('[federation]\nallow_full_model = "yes"\n')
    with pytest.raises(SettingsError, match="true or false"):
        load_settings(tmp_path)
