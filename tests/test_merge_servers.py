"""A merge over HTTP where the server answers garbage, truncates, hangs or redirects, at each call that a merge makes.

Between the merger and a real server stands one that forwards every call but for one kind. Whatever that one does, the
queue is as it was, nothing is refused or published, and the key goes nowhere else; once it behaves all is merged once.
"""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import requests
from fake_servers import FakeServer, answer, hang, redirect
from merging import QuickOperator
from test_operator import TYPE

from dafne_dante.errors import TransportError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import connect
from dafne_dante.federation.depot import HttpDepot
from dafne_dante.federation.running import RunningServer

PAGE = b"<html>502 Bad Gateway</html>"
BEFORE = ("info_model", "get_model", "get_pending_uploads", "download_upload", "upload_merged_model")
"""The calls that a merge makes until something is published."""


def fetched(handler, url):
    """What the real server answers."""
    headers = {"Content-Type": handler.headers["Content-Type"]}
    return requests.post(url + handler.path.strip("/"), data=handler.body, headers=headers, timeout=60)


def relayed(response, content=None):
    checksum = response.headers.get("X-SHA256-Checksum")
    return answer(
        response.content if content is None else content,
        response.status_code,
        length=len(response.content),
        headers=[("X-SHA256-Checksum", checksum)] if checksum else [],
    )


def truncate(handler, url, elsewhere):
    response = fetched(handler, url)
    relayed(response, response.content[: len(response.content) // 2])(handler)


MANNERS = {
    "garbage": lambda handler, url, elsewhere: answer(PAGE)(handler),
    "truncated": truncate,
    "hanging": lambda handler, url, elsewhere: hang(handler),
    "redirecting": lambda handler, url, elsewhere: redirect(elsewhere + handler.path.strip("/"))(handler),
}


class Place:
    """An operator whose server is reached through another one."""

    def __init__(self, root):
        self.operator = QuickOperator(root)
        self.key = Accounts(root / "server").add_user("operator", merge=[TYPE])
        for amount, site in ((0.002, "site1"), (0.004, "site2")):
            self.operator.send(self.operator.delta(amount, site=site))

    def state(self):
        shelf = self.operator.shelf
        return [one.filename for one in shelf.uploads(TYPE)], shelf.versions(TYPE), self.operator.quarantined()

    @contextmanager
    def through(self, call="", manner="garbage", timeout_s=60.0):
        """A depot on a server that has these manners at this call, and one elsewhere that keeps what it is asked."""
        with RunningServer(self.operator.root / "server") as real, FakeServer(answer(PAGE)) as elsewhere:

            def step(handler):
                if handler.path.strip("/") == call:
                    MANNERS[manner](handler, real.url, elsewhere.url)
                else:
                    relayed(fetched(handler, real.url))(handler)

            with FakeServer(step) as server:
                settings = replace(
                    self.operator.settings, server=server.url, api_key=self.key, timeout_s=timeout_s, retries=0
                )
                yield HttpDepot(connect(settings), TYPE), elsewhere

    def check_merged_once(self):
        with self.through() as (depot, _):
            while self.operator.shelf.uploads(TYPE):
                self.operator.merge(depot)
            assert self.operator.merge(depot).reason == "no update waits"
        waiting, versions, quarantined = self.state()
        assert (waiting, len(versions), quarantined) == ([], 2, {})
        assert self.operator.moved() == pytest.approx(0.003, rel=1e-3)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


EARLY = [(call, manner) for call in BEFORE for manner in MANNERS]
# When the last answer is cut short the server has taken the model: the next test's matter.
EARLY.remove(("upload_merged_model", "truncated"))


@pytest.mark.parametrize(("call", "manner"), EARLY)
def test_a_server_that_misbehaves_before_the_publish_is_done_no_harm_by(place, call, manner):
    before = place.state()
    with place.through(call, manner, 2.0 if manner == "hanging" else 60.0) as (depot, elsewhere):
        try:
            report = place.operator.merge(depot)
        except TransportError:
            report = None
        assert call == "download_upload" or report is None
        if report:
            assert (report.merged, len(report.skipped)) == (0, 2)
        assert elsewhere.requests == []
    assert place.state() == before
    place.check_merged_once()


@pytest.mark.parametrize(
    ("call", "manner"),
    [("upload_merged_model", "truncated"), *(("delete_upload", manner) for manner in MANNERS)],
)
def test_a_server_that_misbehaves_after_it_has_taken_the_model_gets_no_second_one(place, call, manner):
    with place.through(call, manner, 2.0 if manner == "hanging" else 60.0) as (depot, elsewhere):
        with pytest.raises(TransportError):
            place.operator.merge(depot)
        assert elsewhere.requests == []
    waiting, versions, quarantined = place.state()
    assert (bool(waiting), len(versions), quarantined) == (True, 2, {})
    place.check_merged_once()
