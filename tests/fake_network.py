"""What lies between a hospital and a server, on this machine: certificate authorities and a proxy."""

import contextlib
import datetime
import ipaddress
import select
import socket
import socketserver
import ssl
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "FakeProxy"]

_NOW = datetime.datetime.now(datetime.timezone.utc)


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject, key, issuer, issuer_key, days, *extensions):
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - datetime.timedelta(days=30))
        .not_valid_after(_NOW + datetime.timedelta(days=days))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Authority:
    """A certificate authority whose own certificate is the file `path`."""

    def __init__(self, folder, name):
        self._name, self._key = name, ec.generate_private_key(ec.SECP256R1())
        self._folder, self.path = folder, folder / f"{name}.pem"
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        parts = [(x509.BasicConstraints(ca=True, path_length=None), True), (usage, True), self._identifier(self._key)]
        self.path.write_bytes(_certificate(name, self._key, name, self._key, 30, *parts))

    @staticmethod
    def _identifier(key):
        return x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False

    def context(self, *hosts, days=30):
        """What a server for these hosts speaks TLS with; a negative number of days: expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts
        ]
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        parts = [(x509.SubjectAlternativeName(names), False), self._identifier(key), (authority, False)]
        path = self._folder / f"{self._name}-{hosts[0]}-{days}.pem"
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(_certificate("served", key, self._name, self._key, days, *parts) + secret)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


class FakeProxy:
    """A proxy on this machine; every tunnel ends at `port` here, whatever host was asked for.

    `status`: what CONNECT is answered with; `word`: the Proxy-Authorization without which that is 407; `drips`: the
    answer comes byte by byte and never ends. `asked` holds the hosts, `heard` everything else that came in readable
    form.
    """

    def __init__(self, port, *, status=200, word=None, drips=False):
        self.asked, self.heard, self._over = [], [], threading.Event()
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who has had enough of drops
                    self._answer()

            def _answer(self):
                lines = []
                while (line := self.rfile.readline().strip()) != b"":
                    lines.append(line.decode())
                proxy.heard += lines
                proxy.asked.append(lines[0].split()[1])
                given = [line.partition(": ")[2] for line in lines if line.startswith("Proxy-Authorization: ")]
                while drips and not proxy._over.wait(0.02):
                    self.wfile.write(b"x")
                answered = 407 if word is not None and given != [word] else status
                self.wfile.write(f"HTTP/1.1 {answered} told\r\nContent-Length: 0\r\n\r\n".encode())
                if answered == 200:
                    with socket.create_connection(("127.0.0.1", port)) as server:
                        self._join(server)

            def _join(self, server):
                pair = {self.connection: server, server: self.connection}
                while True:
                    for source in select.select(list(pair), [], [], 30)[0]:
                        try:
                            block = source.recv(1 << 16)
                            pair[source].sendall(block)
                        except OSError:
                            return
                        if not block:
                            return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def url(self, who=""):
        return f"http://{who}127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *raised):
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
