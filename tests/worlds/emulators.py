"""Google's and Azure's object stores as their emulators play them, each a process: fake-gcs-server and Azurite.

Neither is a package of this project. `go install github.com/fsouza/fake-gcs-server@v1.56.1` and `npm install --global
azurite@3.35.0` bring them; PATH must lead to both.
"""

import base64
import json
import os
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pyarrow import fs

from infra.local.service import NotHealthyYet, poll
from tests.ports import free_port

GOOGLE = "storage.googleapis.com"
ACCOUNT = "emulated"


def executable(name: str, way: str) -> str:
    """Return where an emulator is; skip the test where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on PATH: {way}")
    return found


@contextmanager
def running(command: Sequence[str], folder: Path, port: int, **said: str) -> Iterator[None]:
    """Have a server run for as long as the block does, from when it takes connections."""
    output = folder / "emulator.log"
    with output.open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | said, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def answers() -> None:
        assert server.poll() is None, output.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError as error:
            raise NotHealthyYet(str(error)) from error

    try:
        poll(answers, 60)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(20)


@contextmanager
def google(folder: Path, there: Path) -> Iterator[tuple[str, Path]]:
    """Have Google's store hold the files of a folder as `gs://raw/movies`; yield options for a Java that reads them,
    and a service account's key file.

    Hadoop's connector knows one address only, Google's own. So Java is told to go there through a proxy, which leads to
    the emulator, and to trust its certificate beside all others. Nor does it go anywhere without credentials.
    """
    place = executable("fake-gcs-server", "go install github.com/fsouza/fake-gcs-server@v1.56.1")
    shutil.copytree(there, folder / "buckets" / "raw" / "movies")
    certificate, key = certify(folder, GOOGLE)
    port = free_port()
    command = [place, "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory",
               f"-data={folder / 'buckets'}", f"-public-host={GOOGLE}", f"-external-url=https://{GOOGLE}"]  # fmt: skip
    with (
        running(command, folder, port),
        serving(socketserver.ThreadingTCPServer, _Tunnel) as tunnel,
        serving(ThreadingHTTPServer, _Tokens) as tokens,
    ):
        tunnel.emulator, tunnel.tls = port, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tunnel.tls.load_cert_chain(certificate, key)
        account = folder / "account.json"
        account.write_text(
            json.dumps({
                "type": "service_account", "client_id": "1", "client_email": "made-up@emulated", "private_key_id": "1",
                "private_key": key.read_text(), "token_uri": f"http://127.0.0.1:{tokens.server_address[1]}/token",
            })
        )  # fmt: skip
        options = {
            "https.proxyHost": "127.0.0.1",
            "https.proxyPort": tunnel.server_address[1],
            "javax.net.ssl.trustStore": trusted(folder, certificate),
            "javax.net.ssl.trustStorePassword": "changeit",
        }
        yield " ".join(f"-D{name}={value}" for name, value in options.items()), account


@contextmanager
def azure(folder: Path, there: Path) -> Iterator[tuple[str, str]]:
    """Have Azure's store hold the files of a folder as `movies` of the container `raw`; yield its host and port, and
    its account's key."""
    place = executable("azurite-blob", "npm install --global azurite@3.35.0")
    port = free_port()
    command = [place, "--blobHost=127.0.0.1", f"--blobPort={port}", "--inMemoryPersistence", "--disableTelemetry",
               "--skipApiVersionCheck"]  # fmt: skip
    key = base64.b64encode(os.urandom(32)).decode()
    with running(command, folder, port, AZURITE_ACCOUNTS=f"{ACCOUNT}:{key}"):
        address = f"127.0.0.1:{port}"
        store = fs.AzureFileSystem(
            account_name=ACCOUNT, account_key=key,
            blob_storage_authority=address, blob_storage_scheme="http",
            dfs_storage_authority=address, dfs_storage_scheme="http",
        )  # fmt: skip
        store.create_dir("raw")
        for path in sorted(there.rglob("*.*")):
            with store.open_output_stream(f"raw/movies/{path.relative_to(there)}", compression=None) as target:
                target.write(path.read_bytes())
        yield address, key


def certify(folder: Path, host: str) -> tuple[Path, Path]:
    """Write a certificate of this host, signed by itself, and its key."""
    key, now = rsa.generate_private_key(public_exponent=65537, key_size=2048), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    places = folder / "certificate.pem", folder / "key.pem"
    places[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    places[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return places


def trusted(folder: Path, certificate: Path) -> Path:
    """Return a store of the certificates that Java trusts, this one among them."""
    keytool = executable("keytool", "it comes with a JDK 17")
    own = Path(keytool).resolve().parents[1] / "lib" / "security" / "cacerts"
    store = folder / "trusted"
    shutil.copyfile(own, store)
    subprocess.run(
        [keytool, "-importcert", "-noprompt", "-alias", "emulator", "-file", str(certificate),
         "-keystore", str(store), "-storepass", "changeit"],
        check=True, capture_output=True,
    )  # fmt: skip
    return store


class _Tunnel(socketserver.StreamRequestHandler):
    """A CONNECT of HTTP. To `GOOGLE`, this is where its TLS ends, and the emulator answers; to others, it is they.

    The connector writes a batch's address with two strokes, `//batch/…`. Google does not mind; the emulator does.
    """

    def handle(self) -> None:
        _, wanted, _ = self.rfile.readline().decode().split()
        while self.rfile.readline().strip():
            pass
        host, _, port = wanted.rpartition(":")
        is_google = host == GOOGLE
        there = ("127.0.0.1", self.server.emulator) if is_google else (host, int(port))
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        here = self.server.tls.wrap_socket(self.connection, server_side=True) if is_google else self.connection
        with here, socket.create_connection(there, 60) as beyond:
            back = threading.Thread(target=pass_on, args=(beyond, here))
            back.start()
            pass_on(here, beyond, (b"POST //batch/", b"POST /batch/"))
            back.join()


def pass_on(source: socket.socket, target: socket.socket, mended: tuple[bytes, bytes] = (b"", b"")) -> None:
    """Hand on what comes until its sender is done, then end both ways."""
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece.replace(*mended) if mended[0] else piece)
    for end in (source, target):
        with suppress(OSError):
            socket.socket.shutdown(end, socket.SHUT_RDWR)


class _Tokens(BaseHTTPRequestHandler):
    """Who gives a token to every account that asks."""

    def do_POST(self) -> None:
        said = json.dumps({"access_token": "made-up", "token_type": "Bearer", "expires_in": 3600}).encode()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


@contextmanager
def serving(kind: type[socketserver.TCPServer], handler: type) -> Iterator[socketserver.TCPServer]:
    """Have a server of this process run on a free port."""
    with kind(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
