"""A running embedded server with a type and users, for tests of the server on this machine."""

import requests

from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.rate_limit import Rate
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.server_limits import ServerLimits
from dafne_dante.federation.shelf import Shelf
from dafne_dante.federation.transport import HttpTransport

__all__ = ["BUSY", "LIMIT", "Federation"]

LIMIT = 300_000
BUSY = ServerLimits(file_bytes=LIMIT, address=Rate(1e6, 1e6), user=Rate(1e6, 1e6), pending_bytes=10**9, reserve_bytes=0)
"""Limits for tests that call as often as they like."""
DESCRIPTION = {"categories": ["a"], "latest_timestamp": "1", "dafne_dante": {"delta": 1, "operator_key": "k"}}


class Federation:
    """A running server with a type `Brain (3D)`, the users site, operator and stranger, and their clients."""

    model_type = "Brain (3D)"

    def __init__(self, root, limits=BUSY):
        self.root, self.accounts, self.shelf = root, Accounts(root), Shelf(root)
        self.shelf.add_type(self.model_type, DESCRIPTION)
        self.keys = {
            "site": self.accounts.add_user("site", access=[self.model_type]),
            "operator": self.accounts.add_user("operator", merge=[self.model_type]),
            "stranger": self.accounts.add_user("stranger"),
        }
        self.server = RunningServer(root, limits=limits)

    @property
    def url(self):
        return self.server.url

    def client(self, user="site", **options):
        return FederationClient(HttpTransport(self.url, self.keys.get(user, user), timeout_s=60.0), **options)

    def post(self, call, user="site", **body):
        return requests.post(self.url + call, json={"api_key": self.keys.get(user, user), **body}, timeout=60)

    def form(self, call, user="site", content=b"x", field="model_binary", **fields):
        data = {"api_key": self.keys.get(user, user), "model_type": self.model_type, **fields}
        return requests.post(self.url + call, data=data, files={field: ("a.model", content)}, timeout=60)

    def uploads(self):
        return self.shelf.uploads(self.model_type)

    def empty(self):
        for upload in self.uploads():
            self.shelf.upload_path(self.model_type, upload.filename).unlink()
