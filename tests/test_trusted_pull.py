"""Pulling a global model from a real server that does what it should not, and the commands around pins."""

import json
import threading

import pytest
from federations import Federation
from test_trusted import KEY, OTHER, other_weights, signed

from dafne_dante.config import Settings, load_settings, write_settings
from dafne_dante.delta.signing import fingerprint, public_key_text
from dafne_dante.errors import SettingsError, TrustError
from dafne_dante.federation.model_signature import without_signature
from dafne_dante.federation.pins import PINS_FILE, PinFile, Place
from dafne_dante.federation.pulling import pull_newest
from dafne_dante.federation.trusted import Pin
from dafne_dante.models.file import write_model
from dafne_dante.plugin.base_model import base_from_server

TYPE = Federation.model_type


class Site:
    """A site with a folder of its own, and a server on which anybody may publish."""

    def __init__(self, root):
        self.folder, self.scratch = root / "site", root
        self.federation = Federation(root / "server")
        self.server = self.federation.url
        self.told = []

    def publish(self, model):
        write_model(model, self.scratch / "next.model")
        return self.federation.shelf.publish(TYPE, self.scratch / "next.model")

    def pull(self, **settings):
        return base_from_server(
            self.federation.client(),
            TYPE,
            self.scratch / "pulled.model",
            settings=Settings(folder=self.folder, server=self.server, **settings),
            say=self.told.append,
        )

    def pin(self):
        return PinFile(self.folder).find(Place(self.server, TYPE))


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    with made.federation.server:
        yield made


def test_first_use_then_a_newer_release_then_attacks(site):
    site.publish(signed(1))
    assert "pinned from now on" in site.pull().trust
    site.publish(signed(2, model=other_weights(signed(1))))
    assert "release 2" in site.pull().trust
    assert (site.pin().public_key, site.pin().origin, site.pin().number) == (public_key_text(KEY), "first use", 2)
    for attack in (signed(1), signed(3, key=OTHER), other_weights(signed(3))):
        site.publish(attack)
        with pytest.raises(TrustError):
            site.pull()
        assert site.pin().number == 2
    site.publish(signed(3, rollback_to=1))
    assert "brings back release 1" in site.pull().trust
    assert len(site.told) == 3, "what is refused is told by its error"


def test_an_unsigned_federation_is_told_every_time_and_pins_nothing(site):
    site.publish(without_signature(signed(1)))
    for _ in range(2):
        assert "unsigned" in site.pull().trust
    assert len(site.told) == 2
    assert PinFile(site.folder).all() == {}
    with pytest.raises(TrustError, match="without a signature"):
        site.pull(operator_key=public_key_text(KEY))


def test_a_key_that_is_pinned_beforehand_decides(site):
    site.publish(signed(1))
    with pytest.raises(TrustError, match=fingerprint(public_key_text(KEY))):
        site.pull(operator_key=public_key_text(OTHER))
    assert PinFile(site.folder).all() == {}
    assert "pinned beforehand" in site.pull(operator_key=public_key_text(KEY)).trust


def test_pins_by_command(tmp_path, command):
    folder = tmp_path / "configuration"
    write_settings(Settings(folder=folder, server="https://a.example/"))
    key = public_key_text(KEY)
    assert command("keys", "pin", TYPE, key)[0] == 0
    assert PinFile(folder).find(Place("https://a.example/", TYPE)) == Pin(key)
    (row,) = json.loads(command("keys", "pins", "--json")[1])["pins"]
    assert (row["fingerprint"], row["number"]) == (fingerprint(key), 0)
    assert fingerprint(key) in command("keys", "pins")[1]
    assert command("keys", "unpin", TYPE)[0] == 0
    assert PinFile(folder).all() == {}
    code, _, err = command("keys", "unpin", TYPE)
    assert code != 0
    assert "found none" in err


@pytest.mark.parametrize("place", [TYPE, ""])
def test_pinning_the_same_key_again_brings_no_old_model_back(site, command, place, monkeypatch):
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(site.folder))
    site.publish(signed(7))
    site.pull()
    assert command("keys", "pin", place, public_key_text(KEY), "--server", site.server)[0] == 0
    assert (site.pin().origin, site.pin().number) == ("beforehand", 7)
    site.publish(signed(6))
    with pytest.raises(TrustError, match="release 6, which was replaced"):
        site.pull()


def test_a_key_for_the_whole_server_replaces_what_was_first_seen(site):
    site.publish(signed(7))
    site.pull()
    pins = PinFile(site.folder)
    pins.pin(Place(site.server), public_key_text(OTHER))
    with pytest.raises(TrustError, match="by telephone which key is theirs"):
        site.pull()
    site.publish(signed(1, key=OTHER))
    assert "pinned beforehand" in site.pull().trust
    pins.pin(Place(site.server), public_key_text(KEY))  # the operator's newest key, which this type follows
    site.publish(signed(8))
    assert "release 8" in site.pull().trust


def test_a_first_use_pin_that_lies_beside_a_server_s_pin_gives_way(tmp_path):
    """As an earlier release left them."""
    pins, place = PinFile(tmp_path), Place("https://a.example/", TYPE)
    pins.pin(Place(place.server), public_key_text(KEY))
    document = json.loads((tmp_path / PINS_FILE).read_bytes())
    seen = {"public_key": public_key_text(OTHER), "origin": "first use", "number": 3, "statement_sha256": "a" * 64}
    document["pins"].append({"server": place.server, "model_type": TYPE, **seen})
    (tmp_path / PINS_FILE).write_text(json.dumps(document))
    assert pins.find(place) == Pin(public_key_text(KEY))


def test_a_type_that_a_person_pinned_keeps_its_key(tmp_path):
    pins, place = PinFile(tmp_path), Place("https://a.example/", TYPE)
    pins.pin(place, public_key_text(OTHER))
    pins.pin(Place(place.server), public_key_text(KEY))
    assert pins.find(place) == Pin(public_key_text(OTHER))
    assert pins.find(Place(place.server, "Leg")) == Pin(public_key_text(KEY))
    assert pins.find(Place("https://b.example/", "Leg")) == Pin()


class Slow:
    """The site's client, whose download ends when it is told to."""

    def __init__(self, client):
        self.client, self.asked, self.go = client, threading.Event(), threading.Event()

    def model_info(self, model_type):
        return self.client.model_info(model_type)

    def download_model(self, model_type, version, destination, progress=None):
        found = self.client.download_model(model_type, version, destination, progress)
        self.asked.set()
        assert self.go.wait(60)
        return found


@pytest.mark.parametrize(
    ("slow", "before"), [("release 1", None), ("release 1", 1), ("unsigned", None)], ids=["first", "later", "unsigned"]
)
def test_of_two_pulls_at_once_the_later_release_stays(site, slow, before, tmp_path):
    if before is not None:
        site.publish(signed(1))
        site.pull()
    site.publish(signed(1) if slow == "release 1" else without_signature(signed(1)))
    client, ended = Slow(site.federation.client()), []

    def pull_slowly():
        settings = Settings(folder=site.folder, server=site.server)
        try:
            pull_newest(client, TYPE, tmp_path / "slow.model", settings=settings)
        except TrustError as error:
            ended.append(str(error))

    thread = threading.Thread(target=pull_slowly)
    thread.start()
    assert client.asked.wait(60)
    site.publish(signed(2, model=other_weights(signed(1))))
    site.pull()
    client.go.set()
    thread.join(60)
    assert [("meanwhile" in told or "without a signature" in told) for told in ended] == [True]
    assert (site.pin().number, site.pin().public_key) == (2, public_key_text(KEY))


@pytest.mark.parametrize("name", ["operator_key", "seal_key"])
def test_a_key_in_the_settings_is_checked(tmp_path, name):
    write_settings(Settings(folder=tmp_path, **{name: public_key_text(KEY)}))
    assert getattr(load_settings(tmp_path), name) == public_key_text(KEY)
    (tmp_path / "settings.toml").write_text(f'[federation]\n{name} = "abc"\n')
    with pytest.raises(SettingsError, match=f"{name} must be a public key"):
        load_settings(tmp_path)
