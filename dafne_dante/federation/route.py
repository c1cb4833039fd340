"""The way to a server: through which proxy, and which certificates are trusted.

Invariants
- Certificates are always verified: a route names a file or folder of trusted ones that exists and parses, or the usual
  ones (certifi's). There is no way to switch that off; an empty or broken bundle is an error, never "anything goes".
- Settings go before the environment (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, https_proxy, no_proxy) and that before the
  system's settings (Windows, macOS).
- Plain HTTP is for this machine only and goes through no proxy: one would see the key.
- A proxy's user and password are in no representation and no message.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from dafne_dante.config import is_proxy_address
from dafne_dante.errors import SettingsError

__all__ = ["ProxyAddress", "Route", "checked_address", "find_route"]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class ProxyAddress:
    """A proxy, taken apart."""

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Route:
    """How to reach a server.

    Attributes:
        ca_bundle: file or folder of trusted certificates; "" for the usual ones.
        proxy: the proxy's URL, which may hold a password and is never shown; "" for none.
    """

    ca_bundle: str = ""
    proxy: str = field(default="", repr=False)

    @property
    def proxy_address(self) -> ProxyAddress | None:
        """The proxy taken apart; None without one."""
        if not self.proxy:
            return None
        parts = urlsplit(self.proxy)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return ProxyAddress(parts.hostname or "", port, unquote(parts.username or ""), unquote(parts.password or ""))


def find_route(
    url: str, *, ca_bundle: Path | None = None, proxy: str = "", environment: Mapping[str, str] = os.environ
) -> Route:
    """The route to `url` by the two settings of config.Settings and the environment.

    Raises:
        SettingsError: the URL cannot be used; or the bundle is no file of certificates or the proxy's address is none,
            both in one message.
    """
    if not checked_address(url).lower().startswith("https:"):
        return Route()
    bundle = str(ca_bundle or environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE") or "")
    chosen = "" if proxy == "none" else proxy or _proxy_of_system(url)
    faults = [fault for fault in (_bundle_fault(bundle), _proxy_fault(chosen)) if fault]
    if faults:
        raise SettingsError("; ".join(faults))
    return Route(bundle, chosen)


def checked_address(base_url: str) -> str:
    """A server's base URL, ending with "/"; SettingsError for one that would give the key away, or is none."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingsError("expected the server's address as https://..., found a malformed one") from None
    if not host or parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingsError("expected the server's address as https://host/path/, found something else")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise SettingsError("expected https:// (plain http:// only to this machine): the API key would be readable")
    return base_url if base_url.endswith("/") else base_url + "/"


def _proxy_of_system(url: str) -> str:
    """What the environment, else the system, names for the URL; https_proxy may lack its scheme, as with curl."""
    found = select_proxy(url, get_environ_proxies(url)) or ""
    return found if "://" in found or not found else f"http://{found}"


def _bundle_fault(bundle: str) -> str:
    if not bundle:
        return ""
    path = Path(bundle)
    expected = f"expected ca_bundle (or REQUESTS_CA_BUNDLE) {path.name} to be a PEM file of certificates"
    try:
        if path.is_dir():  # of hashed names, as `openssl rehash` makes it
            return "" if any(path.iterdir()) else f"{expected}, found an empty folder"
        ssl.create_default_context(cafile=bundle)
    except FileNotFoundError:
        return f"{expected}, found no such file"
    except (ssl.SSLError, OSError, ValueError):
        return f"{expected}, found something else"
    return ""


def _proxy_fault(proxy: str) -> str:
    if is_proxy_address(proxy):
        return ""
    return "expected the proxy as http://host:port (setting proxy, or https_proxy), found something else"
