"""What time a server thinks it is, from the Date header of any answer (RFC 9110, section 6.6.1); no key is sent."""

import time
from email.utils import parsedate_to_datetime

import requests

from dafne_dante.federation.failures import explain_failure
from dafne_dante.federation.route import Route, checked_address
from dafne_dante.federation.watchdog import WatchedAdapter

__all__ = ["clock_ahead_s"]


def clock_ahead_s(url: str, route: Route, *, timeout_s: float = 10.0) -> float | None:
    """Seconds by which this machine's clock is ahead of the server's; None where the server does not say.

    Raises:
        ServerUnreachableError: no answer, as `failures.explain_failure` tells it.
    """
    address, before = checked_address(url), time.time()
    with requests.Session() as session:
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, WatchedAdapter())
        session.verify = route.ca_bundle or True
        session.proxies = {"https": route.proxy} if route.proxy else {}
        try:
            with session.get(address, stream=True, allow_redirects=False, timeout=timeout_s) as response:
                said = response.headers.get("Date", "")
        except requests.RequestException as error:
            raise explain_failure(error, address, route) from None
    try:
        return (before + time.time()) / 2 - parsedate_to_datetime(said).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
