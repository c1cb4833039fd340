"""How far a transfer is reaches the person: seldom, in megabytes, from the download and from the upload."""

import pytest
from federations import BUSY, Federation
from outboxes import delta
from test_trusted import KEY

from dafne_dante.config import Settings
from dafne_dante.delta.signing import public_key_text
from dafne_dante.federation.telling import told_in_megabytes
from dafne_dante.plugin.base_model import base_from_server
from dafne_dante.plugin.delivering import Delivery, deliver


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_every_tenth_is_told_once(clock):
    said = []
    progress = told_in_megabytes(said.append, "downloading", clock=clock)
    for done in range(0, 245_000_001, 1_000_000):
        progress(done, 245_000_000)
    assert (len(said), said[0], said[-1]) == (10, "downloading: 25 of 245 MB", "downloading: 245 of 245 MB")


def test_a_slow_one_is_told_every_five_seconds_and_without_a_total_too(clock):
    said = []
    progress = told_in_megabytes(said.append, "sending", clock=clock)
    for second in range(12):
        clock.now_s = float(second)
        progress(100_000 * second, 0)
    assert said == ["sending: 0.5 MB", "sending: 1.0 MB"]


def test_what_comes_in_one_go_is_not_told_of_and_another_try_begins_anew(clock):
    said = []
    progress = told_in_megabytes(said.append, "sending", clock=clock)
    progress(1_000_000, 1_000_000)
    assert said == []
    for done in (50_000_000, 10_000_000, 100_000_000):
        progress(done, 100_000_000)
    assert said == ["sending: 50 of 100 MB", "sending: 10 of 100 MB", "sending: 100 of 100 MB"]


def test_a_download_and_an_upload_tell_it(tmp_path):
    """What the stages of an improvement are told with."""
    from test_trusted_pull import Site

    site, said = Site(tmp_path), []
    with site.federation.server:
        site.publish(large_model())
        settings = Settings(folder=site.folder, server=site.server, operator_key=public_key_text(KEY))
        client = site.federation.client(chunk_bytes=1000)
        base_from_server(
            client, Federation.model_type, tmp_path / "m", settings=settings, server=site.server, say=said.append
        )
        assert [words for words in said if words.startswith(f"downloading {Federation.model_type}: ")]
        said.clear()
        content = delta(model_type=Federation.model_type)
        assert len(content) < BUSY.file_bytes
        deliver(content, Delivery(site.server, 0.5, "command"), settings, client, say=said.append)
    assert any(words.startswith("sending: 0.0 of 0.0 MB") for words in said)


def large_model():
    """Longer than one block of a download."""
    from merging import untrained_model

    from dafne_dante.federation.model_signature import sign_model

    return sign_model(untrained_model(), KEY, model_type=Federation.model_type, number=1)
