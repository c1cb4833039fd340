"""The way to a server through a hospital's network: proxies, certificates, and what is said of them."""

import re
from pathlib import Path

import pytest
from fake_network import Authority, FakeProxy
from fake_servers import FakeServer, answer, drip, drip_headers

import dafne_dante
from dafne_dante.config import Settings
from dafne_dante.errors import (
    CertificateError,
    ProxyRefusedError,
    ServerAnswerError,
    ServerUnreachableError,
    SettingsError,
)
from dafne_dante.federation.client import connect
from dafne_dante.federation.retrying import Retrying, RetryPlan
from dafne_dante.federation.route import Route, find_route
from dafne_dante.federation.transport import HttpTransport

KEY = "0123abcd.secretsecret"
FAR = "https://federation.example/api/"
VARIABLES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HTTP_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "Our Root")


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """The authority of a box that opens TLS."""
    return Authority(tmp_path_factory.mktemp("box"), 'Box "Root" \x1b[2J')


@pytest.fixture
def server(authority):
    with FakeServer(answer(b'{"a": 1}'), context=authority.context("127.0.0.1", "federation.example")) as made:
        yield made


def ask(url, route, pauses=None, timeout_s=5.0):
    pauses = [] if pauses is None else pauses
    retrying = Retrying(RetryPlan(retries=2), pause=pauses.append)
    return HttpTransport(url, KEY, timeout_s=timeout_s, retrying=retrying, route=route).ask("info_model", {})


def test_a_server_is_trusted_by_the_certificates_of_the_settings(server, authority):
    assert ask(server.url, find_route(server.url, ca_bundle=authority.path)) == {"a": 1}


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_server_is_trusted_by_the_certificates_of_the_environment(server, authority, variable):
    assert ask(server.url, find_route(server.url, environment={variable: str(authority.path)})) == {"a": 1}


def test_the_setting_goes_before_the_environment(server, authority, box, monkeypatch):
    """The library itself would take the environment's."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(box.path))
    assert ask(server.url, find_route(server.url, ca_bundle=authority.path)) == {"a": 1}
    with pytest.raises(CertificateError):
        ask(server.url, find_route(server.url))


@pytest.mark.parametrize("trusted", ["nothing", "another"])
def test_a_certificate_that_is_not_trusted_is_told_with_its_issuer_and_not_asked_again(server, box, trusted):
    pauses = []
    route = Route() if trusted == "nothing" else find_route(server.url, ca_bundle=box.path)
    with pytest.raises(CertificateError, match="Our Root") as raised:
        ask(server.url, route, pauses)
    assert "ca_bundle or REQUESTS_CA_BUNDLE" in str(raised.value)
    assert (pauses, server.requests, raised.value.may_have_arrived) == ([], [], False)


def test_an_issuers_name_cannot_write_on_the_terminal(box):
    with (
        FakeServer(answer(b"{}"), context=box.context("127.0.0.1")) as server,
        pytest.raises(CertificateError, match=re.escape('issued by "Box Root [2J"')) as raised,
    ):
        ask(server.url, Route())
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("hosts", "days", "words"), [(["127.0.0.1"], -1, "expired"), (["other.example"], 30, "127.0.0.1")]
)
def test_a_certificate_of_a_trusted_issuer_must_fit(authority, hosts, days, words):
    with (
        FakeServer(answer(b"{}"), context=authority.context(*hosts, days=days)) as server,
        pytest.raises(CertificateError, match=words),
    ):
        ask(server.url, find_route(server.url, ca_bundle=authority.path))
    assert server.requests == []


def test_a_call_goes_through_the_proxy_of_the_settings_unread(server, authority):
    with FakeProxy(server.port) as proxy:
        assert ask(FAR, find_route(FAR, ca_bundle=authority.path, proxy=proxy.url())) == {"a": 1}
    assert proxy.asked == ["federation.example:443"]
    assert server.calls == ["api/info_model"]
    assert KEY not in repr(proxy.heard)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_a_call_goes_through_the_proxy_of_the_environment(server, authority, monkeypatch, variable):
    with FakeProxy(server.port) as proxy:
        address = proxy.url() if variable != "https_proxy" else proxy.url().removeprefix("http://")
        monkeypatch.setenv(variable, address)
        assert ask(FAR, find_route(FAR, ca_bundle=authority.path)) == {"a": 1}
        monkeypatch.setenv("no_proxy", "federation.example")
        assert find_route(FAR).proxy == ""
        assert find_route(FAR, proxy="none").proxy == ""
    assert len(proxy.asked) == 1


def test_none_goes_past_the_environments_proxy(server, authority, monkeypatch):
    with FakeProxy(server.port) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url())
        assert ask(server.url, find_route(server.url, ca_bundle=authority.path, proxy="none")) == {"a": 1}
    assert proxy.asked == []


def test_a_proxy_with_a_password_gets_it_and_nobody_reads_it(server, authority):
    with FakeProxy(server.port, word="Basic c2l0ZTpwQHNz") as proxy:
        route = find_route(FAR, ca_bundle=authority.path, proxy=proxy.url("site:p%40ss@"))
        assert ask(FAR, route) == {"a": 1}
        assert "p%40ss" not in repr(route) + repr(route.proxy_address)
        assert "p@ss" not in repr(route.proxy_address)


@pytest.mark.parametrize(
    ("status", "error", "words", "pauses"),
    [
        (407, ProxyRefusedError, "user and password", 0),
        (403, ProxyRefusedError, "does not let calls", 0),
        (502, ServerUnreachableError, "cannot reach", 2),
    ],
)
def test_what_a_proxy_says_is_told(server, authority, status, error, words, pauses):
    made = []
    with FakeProxy(server.port, status=status) as proxy, pytest.raises(error, match=words) as raised:
        ask(FAR, find_route(FAR, ca_bundle=authority.path, proxy=proxy.url("site:hidden@")), made)
    assert len(made) == pauses
    assert not raised.value.may_have_arrived
    failure = raised.value
    while failure is not None:
        assert "hidden" not in str(failure)
        failure = failure.__cause__
    assert server.requests == []


def test_a_proxy_that_is_down_is_told(authority):
    with FakeProxy(1) as proxy:
        url = proxy.url("site:hidden@")
    with pytest.raises(ServerUnreachableError, match="no answer from the proxy") as raised:
        ask(FAR, find_route(FAR, ca_bundle=authority.path, proxy=url))
    assert "hidden" not in str(raised.value)


@pytest.mark.timeout(60)
def test_a_proxy_that_drips_its_answer_is_given_up(authority):
    with FakeProxy(1, drips=True) as proxy, pytest.raises(ServerUnreachableError):
        ask(FAR, find_route(FAR, ca_bundle=authority.path, proxy=proxy.url()), timeout_s=0.3)
    assert proxy.asked == ["federation.example:443"] * 3


@pytest.mark.timeout(60)
@pytest.mark.parametrize("step", [drip(0.02), drip_headers(0.02)], ids=["the body", "the headers"])
def test_a_server_that_drips_is_given_up_over_tls_too(authority, step):
    with (
        FakeServer(step, context=authority.context("127.0.0.1")) as server,
        pytest.raises(ServerUnreachableError),
    ):
        ask(server.url, find_route(server.url, ca_bundle=authority.path), timeout_s=0.3)
    assert len(server.requests) == 3


def test_a_proxy_that_opens_tls_is_recognised_by_its_issuer(authority, box):
    with (
        FakeServer(answer(b'{"a": 2}'), context=box.context("federation.example")) as opened,
        FakeProxy(opened.port, word="Basic c2l0ZTpoaWRkZW4=") as proxy,
    ):
        address = proxy.url("site:hidden@")
        with pytest.raises(CertificateError, match="Box Root"):
            ask(FAR, find_route(FAR, ca_bundle=authority.path, proxy=address))
        assert opened.requests == []
        assert ask(FAR, find_route(FAR, ca_bundle=box.path, proxy=address)) == {"a": 2}


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_bundle_that_is_none_is_never_taken_for_trust(tmp_path, content):
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_bytes(content)
    for options in ({"ca_bundle": path}, {"environment": {"REQUESTS_CA_BUNDLE": str(path)}}):
        with pytest.raises(SettingsError, match=r"bundle\.pem to be a PEM file") as raised:
            find_route(FAR, **options)
        assert str(tmp_path) not in str(raised.value)


def test_an_empty_folder_of_certificates_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="empty folder"):
        find_route(FAR, ca_bundle=tmp_path)


@pytest.mark.parametrize("proxy", ["socks5://proxy:1080", "proxy:8080", "http://", "http://proxy:port", "http://p/x?y"])
def test_faults_of_proxy_and_bundle_are_told_at_once(tmp_path, proxy):
    with pytest.raises(SettingsError, match=r"ca_bundle.*; expected the proxy"):
        find_route(FAR, ca_bundle=tmp_path / "none.pem", proxy=proxy)


def test_the_client_takes_both_from_the_settings(server, authority, tmp_path):
    with FakeProxy(server.port) as proxy:
        settings = Settings(
            folder=tmp_path, server=FAR, api_key=KEY, ca_bundle=authority.path, proxy=proxy.url(), retries=0
        )
        assert "127.0.0.1" not in repr(settings)
        with pytest.raises(ServerAnswerError, match="list of model types"):
            connect(settings).available_models()
    assert server.calls == ["api/get_available_models"]


def test_passwords_of_netrc_are_not_sent(server, authority, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    ask(server.url, find_route(server.url, ca_bundle=authority.path))
    assert "Authorization" not in server.requests[0][2]


def test_verification_is_switched_off_nowhere():
    """One place looks at a certificate that is not trusted, to name its issuer; it writes nothing to it."""
    off = re.compile(r"verify\s*=\s*(False|0|None)|CERT_NONE|_create_unverified|disable_warnings|check_hostname")
    found = {
        path.name: off.findall(path.read_text(encoding="utf-8"))
        for path in Path(dafne_dante.__file__).parent.rglob("*.py")
        if off.search(path.read_text(encoding="utf-8"))
    }
    assert set(found) == {"failures.py"}
    source = (Path(dafne_dante.__file__).parent / "federation" / "failures.py").read_text(encoding="utf-8")
    assert not re.search(r"shown\.(send|write)|verify\s*=\s*False", source)
