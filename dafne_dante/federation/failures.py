"""What a failure of the network means, in words and in errors of our own.

Invariants
- No text of a foreign exception is passed on: it may hold the request's key or the proxy's password.
- Nothing is sent over a connection whose certificate was not verified. `issuer_seen` makes one to look at the
  certificate, and closes it.
"""

import base64
import http.client
import re
import socket
import ssl
from urllib.parse import urlsplit

import requests
from cryptography import x509
from cryptography.x509.oid import NameOID

from dafne_dante.errors import CertificateError, ProxyRefusedError, ServerUnreachableError
from dafne_dante.federation.route import Route
from dafne_dante.federation.watchdog import Watchdog

__all__ = ["explain_failure", "issuer_seen"]

_LOOK_S = 5.0
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_VERIFY = re.compile(r"certificate verify failed: ([A-Za-z0-9 ,'.:*_-]{1,160})")


def explain_failure(error: requests.RequestException, url: str, route: Route) -> ServerUnreachableError:
    """The error that says what to do about a call to `url` that got no answer."""
    text = str(error)
    if isinstance(error, requests.exceptions.ProxyError):
        return _refused_by_proxy(_TUNNEL.search(text))
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in text:
        return _not_trusted(_VERIFY.search(text), issuer_seen(url, route))
    return ServerUnreachableError(
        f"no answer from the federation server ({type(error).__name__}); check the address and the network"
    )


def _refused_by_proxy(status: re.Match[str] | None) -> ServerUnreachableError:
    if status is None:
        return ServerUnreachableError("no answer from the proxy; check its address", may_have_arrived=False)
    if status[1] == "407":
        return ProxyRefusedError(
            "the proxy wants a user and password (407), or others; give them in [federation] "
            'proxy = "http://user:password@host:port"',
            may_have_arrived=False,
        )
    if status[1].startswith("5"):
        return ServerUnreachableError(
            f"the proxy cannot reach the federation server ({status[1]}); try again later", may_have_arrived=False
        )
    return ProxyRefusedError(
        f"the proxy does not let calls to the federation server through ({status[1]}); ask its administrator",
        may_have_arrived=False,
    )


def _not_trusted(reason: re.Match[str] | None, issuer: str) -> CertificateError:
    by = f'one issued by "{issuer}"' if issuer else "another"
    why = f" ({reason[1].strip()})" if reason else ""
    return CertificateError(
        f"expected a certificate that this machine trusts, found {by}{why}; is there a proxy that opens TLS? "
        "give its certificate in [federation] ca_bundle or REQUESTS_CA_BUNDLE",
        may_have_arrived=False,
    )


def issuer_seen(url: str, route: Route, timeout_s: float = _LOOK_S) -> str:
    """The name of who issued the certificate that is shown for `url`; "" when it cannot be seen."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        with _connected(host, port, route, timeout_s) as plain:
            # To look, not to talk: nothing is written to it.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain, server_hostname=host) as shown:
                content = shown.getpeercert(binary_form=True) or b""
        name = x509.load_der_x509_certificate(content).issuer
    except (OSError, ValueError, http.client.HTTPException):
        return ""
    found = [*name.get_attributes_for_oid(NameOID.COMMON_NAME), *name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    text = str(found[0].value) if found else ""
    return "".join(one for one in text if one.isprintable() and one not in '"\\')[:80]


def _connected(host: str, port: int, route: Route, timeout_s: float) -> socket.socket:
    proxy = route.proxy_address
    if proxy is None:
        return socket.create_connection((host, port), timeout=timeout_s)
    tunnel = http.client.HTTPConnection(proxy.host, proxy.port, timeout=timeout_s)
    word = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
    tunnel.set_tunnel(host, port, {"Proxy-Authorization": f"Basic {word}"} if proxy.user else {})
    with Watchdog(lambda: tunnel.sock, timeout_s):  # a proxy may drip its answer
        tunnel.connect()
    plain: socket.socket = tunnel.sock
    return plain
