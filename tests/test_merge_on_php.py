"""Whole merges against a fake of Dafne's PHP server: its four calls for merging, its statuses, and answers lost."""

import itertools
from dataclasses import replace

import pytest
from fake_dafne import corrupted, unanswered
from fake_php import OPERATOR, SITE, MergingPhp
from fake_servers import FakeServer
from merging import QuickOperator
from test_operator import HEAD, TYPE

from dafne_dante.delta.signing import ensure_signing_key, public_key_text
from dafne_dante.errors import AccessDeniedError, ServerAnswerError, TransportError
from dafne_dante.federation.adopting import adopt_version
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.depot import HttpDepot
from dafne_dante.federation.model_signature import read_signature
from dafne_dante.federation.retrying import Retrying, RetryPlan
from dafne_dante.federation.transport import HttpTransport
from dafne_dante.models.file import parse_model

FIRST_SECOND = 1_800_000_000


class Php:
    """The fake with its first version, an operator with a signing key, and a clock that goes on with every look."""

    def __init__(self, root, **limits):
        self.operator = QuickOperator(root)
        ensure_signing_key(self.operator.settings.folder)
        adopt_version(self.operator.depot, TYPE, self.operator.first, self.operator.settings)
        seconds = itertools.count(FIRST_SECOND)
        first = (root / "first.model").read_bytes()
        capability = {"dafne_dante": {"delta": 1.0}, "categories": ["a"]}
        self.fake = MergingPhp(TYPE, {self.operator.first: first}, capability, clock=lambda: next(seconds), **limits)
        self.root = root
        # Nobody here published it; it lies in the folder under the same number.
        adopt_version(self.operator.depot, TYPE, self.operator.first, self.operator.settings)

    def client(self, server, key=OPERATOR, **options):
        retrying = Retrying(RetryPlan(retries=2), pause=lambda seconds: None)
        return FederationClient(HttpTransport(server.url, key, timeout_s=60.0, retrying=retrying), **options)

    def send(self, server, *contents):
        for number, content in enumerate(contents):
            path = self.root / f"{number}.delta"
            path.write_bytes(content)
            self.client(server, SITE).upload(TYPE, path, 0.5)

    def merge(self, server, key=OPERATOR, **options):
        return self.operator.merge(HttpDepot(self.client(server, key, **options), TYPE))

    def newest(self):
        return parse_model(self.fake.versions[max(self.fake.versions, key=int)])

    def moved(self):
        return (self.newest().weights[HEAD] - self.operator.model.weights[HEAD]).mean().item()


@pytest.fixture
def php(tmp_path):
    return Php(tmp_path)


def test_two_sites_deltas_become_the_next_signed_version(php):
    with FakeServer(php.fake) as server:
        php.send(server, php.operator.delta(0.002), php.operator.delta(0.004, site="site2"))
        report = php.merge(server)
        assert (report.merged, report.step, report.quarantined) == (2, 1.0, ())
        assert report.version == max(php.fake.versions, key=int)
        assert php.moved() == pytest.approx(0.003, rel=1e-3)
        assert php.fake.kept == {}
        assert php.merge(server).reason == "no update waits"
    key = public_key_text(ensure_signing_key(php.operator.settings.folder))
    assert read_signature(php.newest()).public_key == key
    assert {"get_pending_uploads", "download_upload", "upload_merged_model", "delete_upload"} <= set(server.calls)


def test_what_cannot_be_taken_is_first_in_the_queue_and_blocks_nothing(php):
    with FakeServer(php.fake) as server:
        php.send(server, b"no model", php.operator.delta(0.002, site="stranger"), php.operator.delta(0.002))
        report = php.merge(server)
    assert (report.merged, len(report.quarantined)) == (1, 2)
    assert php.moved() == pytest.approx(0.002, rel=1e-3)
    assert php.fake.kept == {}


def test_the_next_round_builds_on_the_version_that_was_published(php):
    with FakeServer(php.fake) as server:
        php.send(server, php.operator.delta(0.002))
        php.merge(server)
        tuned = replace(php.operator.model, weights=php.newest().weights)
        php.send(server, php.operator.delta(0.003, model=tuned))
        report = php.merge(server)
    assert report.merged == 1
    assert php.moved() == pytest.approx(0.005, rel=1e-3)
    assert len(php.fake.versions) == 3


def lost(php, call):
    """The fake does what `call` asks for, once, and the answer is lost."""
    done = []

    def step(handler):
        if handler.path == f"/{call}" and not done:
            done.append(call)
            unanswered(php.fake)(handler)
        else:
            php.fake(handler)

    return step


@pytest.mark.parametrize("call", ["get_pending_uploads", "download_upload", "delete_upload"])
def test_a_lost_answer_is_asked_for_again(php, call):
    with FakeServer(lost(php, call)) as server:
        php.send(server, php.operator.delta(0.002))
        report = php.merge(server)
    assert report.merged == 1
    assert (len(php.fake.versions), php.fake.kept) == (2, {})


def test_when_the_answer_to_the_publish_is_lost_the_next_run_finds_what_became_of_it(php):
    with FakeServer(lost(php, "upload_merged_model")) as server:
        php.send(server, php.operator.delta(0.002))
        with pytest.raises(TransportError):
            php.merge(server)
        assert len(php.fake.kept) == 1
        php.merge(server)
        assert (len(php.fake.versions), php.fake.kept) == (2, {})
        assert php.merge(server).reason == "no update waits"
    assert php.moved() == pytest.approx(0.002, rel=1e-3)


def test_a_model_that_was_changed_on_its_way_is_422_and_sent_again(php):
    hits = []

    def step(handler):
        spoils = handler.path == "/upload_merged_model" and not hits
        hits.extend(["spoilt"] * spoils)
        (corrupted(php.fake) if spoils else php.fake)(handler)

    with FakeServer(step) as server:
        php.send(server, php.operator.delta(0.002))
        assert php.merge(server).merged == 1
    assert hits == ["spoilt"]
    assert len(php.fake.versions) == 2
    assert php.moved() == pytest.approx(0.002, rel=1e-3)


def test_a_merged_model_longer_than_a_part_goes_in_one_piece(php):
    with FakeServer(php.fake) as server:
        php.send(server, php.operator.delta(0.002))
        assert php.merge(server, chunk_bytes=4096).merged == 1
    assert len(php.fake.versions) == 2
    assert php.moved() == pytest.approx(0.002, rel=1e-3)


@pytest.mark.parametrize("key", [SITE, "wrong"])
def test_a_key_without_the_right_to_merge_is_told_and_leaves_the_queue(php, key):
    with FakeServer(php.fake) as server:
        php.send(server, php.operator.delta(0.002))
        with pytest.raises(AccessDeniedError):
            php.merge(server, key)
    assert (len(php.fake.versions), len(php.fake.kept)) == (1, 1)


def test_a_merged_model_beyond_the_servers_limit_is_401_and_told_as_perhaps_too_large(tmp_path):
    php = Php(tmp_path, post_bytes=6000)
    with FakeServer(php.fake) as server:
        php.fake.kept["1_site.model"] = php.operator.delta(0.002)
        with pytest.raises(AccessDeniedError, match="larger than the server takes"):
            php.merge(server)
        php.fake.post_bytes = 10**9
        assert php.merge(server).merged == 1
    assert php.moved() == pytest.approx(0.002, rel=1e-3)


def test_an_upload_that_another_took_off_is_no_loss(php):
    def step(handler):
        if handler.path == "/download_upload" and b'"1_gone' in handler.body:
            php.fake.kept.pop("1_gone.model", None)
        php.fake(handler)

    with FakeServer(step) as server:
        php.fake.kept["1_gone.model"] = php.operator.delta(0.5)
        php.send(server, php.operator.delta(0.002))
        try:
            report = php.merge(server)
        except ServerAnswerError:
            report = php.merge(server)
    assert report.merged == 1
    assert php.moved() == pytest.approx(0.002, rel=1e-3)
