"""What the stock servers do to uploads (DAFNE.md section 2), each hazard against a fake that behaves so."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from fake_dafne import FakeFastApi, FakePhp, corrupted, form_of, unanswered
from fake_servers import FakeServer, answer, hang_up

from dafne_dante.errors import AccessDeniedError, ServerAnswerError, ServerUnreachableError, UploadUnknownError
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.retrying import Retrying, RetryPlan
from dafne_dante.federation.transport import HttpTransport
from dafne_dante.federation.upload_turns import UploadTurns

CONTENT = bytes(range(25))


class Clock:
    """A time that passes only in pauses."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now

    def pause(self, seconds):
        self.now += seconds


@pytest.fixture
def update(tmp_path):
    path = tmp_path / "a.delta"
    path.write_bytes(CONTENT)
    return path


def client_of(server, chunk_bytes=10, **options):
    retrying = Retrying(RetryPlan(retries=2), pause=lambda seconds: None)
    return FederationClient(
        HttpTransport(server.url, "key", timeout_s=60.0, retrying=retrying), chunk_bytes=chunk_bytes, **options
    )


def uploads_of(server):
    """(index, file name) of every part that came."""
    forms = []
    for _, path, headers, body in server.requests:
        if path == "/upload_model":
            handler = type("Request", (), {"headers": headers, "body": body})
            form = form_of(handler)
            forms.append((int(form["chunk_index"]), form["filename"]))
    return forms


def test_two_uploads_of_one_second_overwrite_each_other_on_the_server(update):
    """The hazard itself, so that the next test means something."""
    stock = FakePhp(Clock())
    with FakeServer(stock) as server:
        for content in (b"first", b"second"):
            update.write_bytes(content)
            client_of(server).upload("Brain", update, 0.5)
    assert stock.kept == {"1000_site.model": b"second"}


@pytest.mark.parametrize("stock", [FakePhp, FakeFastApi])
def test_uploads_in_turns_are_all_kept(update, tmp_path, stock):
    clock = Clock()
    stock = stock(clock)
    with FakeServer(stock) as server:
        turns = UploadTurns(tmp_path / "settings", server.url, pause=clock.pause, clock=clock)
        for content in (b"first", b"second", b"third"):
            update.write_bytes(content)
            client_of(server, turn=turns.turn).upload("Brain", update, 0.5)
    assert sorted(stock.kept.values()) == [b"first", b"second", b"third"]


def test_a_lost_last_answer_is_told_as_unknown_and_nothing_is_sent_again(update):
    stock = FakePhp()
    with FakeServer(stock, stock, stock, unanswered(stock), stock) as server:
        with pytest.raises(UploadUnknownError, match="may have taken the file") as raised:
            client_of(server).upload("Brain", update, 0.5)
        assert raised.value.may_have_arrived
        assert list(stock.kept.values()) == [CONTENT]
        assert [index for index, _ in uploads_of(server)] == [0, 1, 2]
        # What sending the last part again would have met: 500, although the file is there.
        _, path, headers, body = server.requests[-1]
        again = requests.post(server.url + path.strip("/"), data=body, headers=headers, timeout=60)
    assert again.status_code == 500
    assert list(stock.kept.values()) == [CONTENT]


def test_a_lost_answer_to_an_earlier_part_costs_that_part_only(update):
    stock = FakePhp()
    with FakeServer(stock, unanswered(stock), hang_up, stock) as server:
        client_of(server).upload("Brain", update, 0.5)
    assert list(stock.kept.values()) == [CONTENT]
    assert [index for index, _ in uploads_of(server)] == [0, 0, 0, 1, 2]
    assert len({name for _, name in uploads_of(server)}) == 1


def test_a_last_part_that_a_busy_server_refused_is_sent_again(update):
    stock = FakePhp()
    with FakeServer(stock, stock, stock, answer(b"", 503), stock) as server:
        client_of(server).upload("Brain", update, 0.5)
    assert list(stock.kept.values()) == [CONTENT]


def test_a_missing_part_means_part_0_again_under_another_name(update):
    stock = FakePhp()

    def forgets(handler):
        stock.parts.clear()  # the operator tidied up
        stock(handler)

    with FakeServer(stock, stock, forgets, stock) as server:
        client_of(server).upload("Brain", update, 0.5)
    assert list(stock.kept.values()) == [CONTENT]
    assert [index for index, _ in uploads_of(server)] == [0, 1, 2, 0, 1, 2]
    first, second = {name for _, name in uploads_of(server)[:3]}, {name for _, name in uploads_of(server)[3:]}
    assert len(first) == len(second) == 1
    assert first != second


def test_a_server_that_always_forgets_is_given_up(update):
    step = answer(b'{"message": "missing chunk 0"}', 500)
    received = answer(b'{"message": "chunk received"}')
    info = FakePhp()
    with (
        FakeServer(info, received, received, step, received, received, step, received, received, step) as server,
        pytest.raises(ServerAnswerError, match="500"),
    ):
        client_of(server).upload("Brain", update, 0.5)
    assert len(uploads_of(server)) == 9


def test_parts_of_files_that_go_at_once_never_meet(tmp_path):
    """The server's folder of parts is named by the file's name alone; two of one name would mix."""
    ticks = iter(range(1000, 2000))
    stock = FakePhp(lambda: next(ticks))
    contents = [bytes([number]) * 95 for number in range(6)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.delta").write_bytes(content)
    with FakeServer(stock) as server, ThreadPoolExecutor(6) as pool:
        gate = threading.Barrier(6)

        def go(number):
            gate.wait()
            client_of(server).upload("Brain", tmp_path / f"{number}.delta", 0.5)

        list(pool.map(go, range(6)))
    assert sorted(stock.kept.values()) == contents


@pytest.mark.parametrize("size", [25, 5])
def test_bytes_that_changed_on_their_way_are_sent_anew(update, size):
    update.write_bytes(CONTENT[:size])
    stock = FakePhp()
    with FakeServer(stock, corrupted(stock), stock) if size > 10 else FakeServer(corrupted(stock), stock) as server:
        client_of(server).upload("Brain", update, 0.5)
    assert list(stock.kept.values()) == [CONTENT[:size]]
    assert len({name for _, name in uploads_of(server)}) == 2


def test_a_way_that_always_changes_bytes_is_told(update):
    stock = FakePhp()
    with FakeServer(corrupted(stock)) as server, pytest.raises(ServerAnswerError, match="500") as raised:
        client_of(server, chunk_bytes=100).upload("Brain", update, 0.5)
    assert raised.value.reason == "Communication error during upload"
    assert (len(server.requests), stock.kept) == (3, {})


def test_fastapi_gets_a_long_file_in_one_piece(update):
    """It would keep every part as an upload of its own, in its operator's queue."""
    stock = FakeFastApi()
    with FakeServer(stock) as server:
        client_of(server).upload("Brain", update, 0.5)
    assert list(stock.kept.values()) == [CONTENT]
    assert uploads_of(server)[0][0] == 0
    assert len(uploads_of(server)) == 1


def test_a_server_that_only_seems_to_know_parts_gets_one_piece_after_all(update):
    """Its model.json names a size; and a PHP server of before April 2026."""
    ticks = iter(range(1000, 2000))
    for stock in (FakeFastApi(lambda: next(ticks), latest_size=3), FakePhp(joins_parts=False)):
        with FakeServer(stock) as server:
            client_of(server).upload("Brain", update, 0.5)
        assert CONTENT in stock.kept.values()
        assert len(uploads_of(server)) == 2


def test_fastapi_says_with_200_that_the_bytes_differ(update):
    stock = FakeFastApi()
    with FakeServer(corrupted(stock)) as server, pytest.raises(ServerAnswerError, match="500"):
        client_of(server, chunk_bytes=100).upload("Brain", update, 0.5)
    assert len(server.requests) == 3


def test_a_file_too_long_for_one_piece_is_refused_before_it_is_sent(tmp_path):
    path = tmp_path / "long.delta"
    with path.open("wb") as stream:
        stream.truncate(500 * 1024**2 + 1)
    stock = FakeFastApi()
    with FakeServer(stock) as server, pytest.raises(ServerAnswerError, match=r"long\.delta is too long"):
        client_of(server).upload("Brain", path, 0.5)
    assert server.calls == ["info_model"]


@pytest.mark.parametrize(
    ("limits", "error"), [({"post_bytes": 5000}, AccessDeniedError), ({"file_bytes": 5000}, ServerAnswerError)]
)
def test_a_refusal_of_a_long_file_names_both_reasons_and_is_not_repeated(update, limits, error):
    """401 when the body is beyond PHP's post_max_size, 400 when the file is beyond upload_max_filesize."""
    update.write_bytes(b"x" * 10_000)
    stock = FakePhp(**limits)
    with FakeServer(stock) as server:
        with pytest.raises(error, match=r"(key|name).*larger than the server takes.*chunk_mib"):
            client_of(server, chunk_bytes=10_000).upload("Brain", update, 0.5)
        assert len(server.requests) == 1
        client_of(server, chunk_bytes=1000).upload("Brain", update, 0.5)
    assert list(stock.kept.values()) == [b"x" * 10_000]


def test_a_long_file_is_broken_off_and_may_be_sent_again(tmp_path):
    """The connection ends before the server can have all of it, so it cannot have taken it."""
    path = tmp_path / "a.delta"
    path.write_bytes(bytes(20_000_000))
    stock, broken = FakePhp(), []

    with FakeServer(stock) as server:
        handler = server._server.RequestHandlerClass
        whole = handler.do_POST

        def once(self):
            if broken:
                whole(self)
                return
            broken.append(self.rfile.read(1000))
            self.connection.close()
            self.close_connection = True

        handler.do_POST = once
        client_of(server, chunk_bytes=10**8).upload("Brain", path, 0.5)
    assert len(broken) == 1
    assert [len(content) for content in stock.kept.values()] == [20_000_000]


def test_a_server_that_calls_a_part_an_upload_is_not_believed(update):
    with (
        FakeServer(FakePhp(), answer(b'{"message": "upload successful"}')) as server,
        pytest.raises(ServerAnswerError, match="wait for the other parts"),
    ):
        client_of(server).upload("Brain", update, 0.5)


def test_a_server_that_waits_for_more_after_the_last_part_is_not_believed(update):
    step = answer(b'{"message": "chunk received"}')
    with FakeServer(FakePhp(), step) as server, pytest.raises(ServerAnswerError, match="waits for more"):
        client_of(server).upload("Brain", update, 0.5)


def test_no_part_of_a_cut_download_is_asked_for(tmp_path):
    """Range is ignored by the servers: a rest would be taken for the beginning."""
    content = b"x" * 1000
    with FakeServer(answer(content[:10], length=1000), answer(content)) as server:
        client_of(server).download_upload("Brain", "1_site.model", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content
    assert all("Range" not in headers for _, _, headers, _ in server.requests)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_what_a_stock_client_would_try_three_times_is_tried_once_and_the_file_stays(update, status):
    with (
        FakeServer(answer(b'{"message": "no"}', status)) as server,
        pytest.raises((AccessDeniedError, ServerAnswerError)),
    ):
        client_of(server, chunk_bytes=100).upload("Brain", update, 0.5)
    assert len(server.requests) == 1
    assert update.read_bytes() == CONTENT


def test_a_failure_before_the_last_part_is_known_to_have_left_nothing(update):
    with FakeServer(FakePhp(), hang_up) as server, pytest.raises(ServerUnreachableError) as raised:
        client_of(server).upload("Brain", update, 0.5)
    assert not isinstance(raised.value, UploadUnknownError)
    assert [index for index, _ in uploads_of(server)] == [0, 0, 0]
