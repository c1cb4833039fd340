"""The federation server as this site sees it: the way there, its certificate, the clock, the key and its rights.

Invariants: nothing is uploaded; each call is tried once and bounded in time; the key is in no finding.
"""

from contextlib import suppress
from dataclasses import replace

from dafne_dante.config import Settings
from dafne_dante.errors import (
    AccessDeniedError,
    CertificateError,
    ProxyRefusedError,
    ServerAnswerError,
    ServerUnreachableError,
    SettingsError,
    TransportError,
)
from dafne_dante.federation.client import FederationClient, connect
from dafne_dante.federation.failures import issuer_seen
from dafne_dante.federation.route import Route, find_route
from dafne_dante.federation.server_clock import clock_ahead_s
from dafne_dante.plugin.doctor.finding import Finding, fault, good, warning

__all__ = ["check_server"]

_MOST_S = 10.0
_OFF_S = 300.0
_MOST_TYPES = 20


def check_server(settings: Settings) -> list[Finding]:
    """What can be found out, in the order in which it must work; after a fault of the way nothing more is asked."""
    if not settings.server:
        return [warning("server", "none is set", "put its address into [federation] server, or let nothing leave")]
    try:
        route = find_route(settings.server, ca_bundle=settings.ca_bundle, proxy=settings.proxy)
        ahead_s = clock_ahead_s(settings.server, route, timeout_s=min(_MOST_S, settings.timeout_s))
    except SettingsError as error:
        return [fault("server", str(error), "correct [federation] of the settings")]
    except ServerUnreachableError as error:
        return [_no_way(error)]
    way = "through a proxy" if route.proxy else "directly"
    return [good("server", f"answers, {way}"), _certificate(settings, route), _clock(ahead_s), *_key(settings)]


def _no_way(error: ServerUnreachableError) -> Finding:
    if isinstance(error, CertificateError):
        return fault(
            "certificate",
            str(error),
            "a hospital's proxy that opens TLS shows a certificate of its own: ask for its root certificate as a PEM "
            "file and put it into [federation] ca_bundle; if there is no such proxy, do not go on",
        )
    if isinstance(error, ProxyRefusedError):
        return fault("server", str(error), "correct [federation] proxy, or ask who runs the proxy")
    return fault("server", str(error), "look at [federation] server and proxy, and whether this machine has a network")


def _certificate(settings: Settings, route: Route) -> Finding:
    if not settings.server.lower().startswith("https:"):
        return good("certificate", "none needed: the server is this machine")
    issuer = issuer_seen(settings.server, route) or "somebody without a name"
    trusted = "an authority that this site added (ca_bundle)" if route.ca_bundle else "a public authority"
    return good("certificate", f'trusted, issued by "{issuer}", {trusted}')


def _clock(ahead_s: float | None) -> Finding:
    if ahead_s is None:
        return warning("clock", "the server does not tell the time", "compare this machine's clock with another")
    if abs(ahead_s) > _OFF_S:
        told = f"{abs(ahead_s) / 60:.0f} minutes {'ahead of' if ahead_s > 0 else 'behind'} the server's"
        return fault("clock", told, "let this machine set its clock by the network (NTP); deltas carry the time")
    return good("clock", f"within {max(1.0, abs(ahead_s)):.0f} s of the server's")


def _key(settings: Settings) -> list[Finding]:
    try:
        client = connect(replace(settings, retries=0, timeout_s=min(_MOST_S, settings.timeout_s)))
        types = client.available_models()
    except SettingsError as error:
        where = "Dafne's Dante settings, or [federation] api_key"
        unlock = "unlock the keyring; or " if settings.key_fault else ""
        return [fault("key", str(error), f"{unlock}put the key that the operator gave you into {where}")]
    except AccessDeniedError:
        return [
            fault("key", "the server does not take it", "compare it with what the operator sent, or ask for a new one")
        ]
    except TransportError as error:
        return [fault("key", f"could not be tried: {error}", "ask the operator whether this is a Dafne server")]
    if not types:
        return [fault("key", "taken, for no model type", "ask the operator for access to a type")]
    more = f" and {len(types) - _MOST_TYPES} more" if len(types) > _MOST_TYPES else ""
    try:
        told = ", ".join(_rights(client, model_type) for model_type in types[:_MOST_TYPES])
    except ServerUnreachableError as error:
        return [good("key", "taken"), _no_way(error)]
    return [good("key", "taken"), good("permissions", f"{told}{more}")]


def _rights(client: FederationClient, model_type: str) -> str:
    """One type, whether it takes deltas and whether this key may merge it; ServerUnreachableError."""
    try:
        notes = ["takes deltas" if client.model_info(model_type).capability else "takes full models only"]
    except (AccessDeniedError, ServerAnswerError):
        notes = ["no version yet"]
    with suppress(AccessDeniedError, ServerAnswerError):  # how a server says that it may not
        client.pending_uploads(model_type)
        notes.append("may merge")
    return f"{model_type} ({', '.join(notes)})"
