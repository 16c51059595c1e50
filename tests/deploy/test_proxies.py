"""deploy/proxy: event streams pass at once and large uploads pass whole, through real proxies where they are there."""

from __future__ import annotations

import io
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image

from influencerai.settings import Settings
from tests.databases import Databases
from tests.deploy.manifests import ROOT
from tests.serve.sockets import served

FOLDER = ROOT / "deploy" / "proxy"
ANN = {"x-tenant-id": "ann"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of localhost that it has signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def replaced(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def caddy(folder: Path, *, port: int, upstream: int) -> list[str]:
    certificate, key = write_certificate(folder)
    text = replaced(
        (FOLDER / "Caddyfile").read_text(),
        ("{\n\tservers {", "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {"),
        ("influencerai.example.com {", f"https://localhost:{port} {{\n\ttls {certificate} {key}"),
        ("127.0.0.1:3001 {", f"127.0.0.1:{upstream} {{"),
    )
    (folder / "Caddyfile").write_text(text)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def nginx(folder: Path, *, port: int, upstream: int) -> list[str]:
    certificate, key = write_certificate(folder)
    name = "/etc/letsencrypt/live/influencerai.example.com"
    text = replaced(
        (FOLDER / "nginx.conf").read_text(),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("influencerai.example.com;", "localhost;"),
        (f"{name}/fullchain.pem", str(certificate)),
        (f"{name}/privkey.pem", str(key)),
        ("server 127.0.0.1:3001;", f"server 127.0.0.1:{upstream};"),
    )
    places = "".join(
        f"{kind}_temp_path {folder / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    head = f"daemon off; pid {folder / 'pid'}; error_log stderr; events {{}}\n"
    (folder / "nginx.conf").write_text(f"{head}http {{ access_log off;\n{places}{text}\n}}\n")
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", "stderr", "-p", str(folder)]


@contextmanager
def proxied(command: list[str], port: int, folder: Path) -> Iterator[httpx2.Client]:
    """A client of the proxy, until the end of the block."""
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    try:
        with httpx2.Client(base_url=f"https://localhost:{port}", verify=context, timeout=60, trust_env=False) as client:
            deadline = time.monotonic() + 30
            while True:
                try:
                    if client.get("/healthz").status_code == 200:
                        break
                except httpx2.HTTPError:
                    pass
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("name", ["caddy", "nginx"])
def test_streams_pass_at_once_and_uploads_whole(name: str, tmp_path: Path, databases: Databases) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    settings = Settings(root=tmp_path / "root", database_url=databases.new("sqlite"))
    settings.root.mkdir()
    port = free_port()
    with served(settings) as server:
        make = caddy if name == "caddy" else nginx
        command = make(tmp_path, port=port, upstream=int(server.url.rpartition(":")[2]))
        with proxied(command, port, tmp_path) as client:
            dataset = client.post("/datasets", headers=ANN, json={"kind": "lora-training", "path": "data/me"}).json()
            images = f"/datasets/{dataset['id']}/images"
            buffer = io.BytesIO()
            Image.frombytes("RGB", (1024, 1024), os.urandom(3 * 2**20)).save(buffer, "PNG", compress_level=0)
            answer = client.post(images, headers=ANN, files={"files": ("a.png", buffer.getvalue())})
            assert answer.status_code == 200, answer.text
            assert (settings.root / "data/me/a.png").stat().st_size > 3 * 2**20

            config = client.post("/lora-configs", headers=ANN, json={"name": "x", "modelName": "sd15"}).json()
            body = {"type": "lora-training", "payload": {"datasetId": dataset["id"], "loraConfigId": config["id"]}}
            job = client.post("/jobs", headers=ANN, json=body).json()["id"]
            accept = {**ANN, "accept": "text/event-stream"}
            with client.stream("GET", f"/jobs/{job}/events", headers=accept) as stream:
                lines = stream.iter_lines()
                assert any("pending" in line for line in lines)
                sent = time.monotonic()
                server_change = httpx2.patch(f"{server.url}/jobs/{job}", headers=ANN, json={"status": "running"})
                assert server_change.status_code == 200
                assert any("running" in line for line in lines)
                assert time.monotonic() - sent < 5  # a proxy that buffers waits for the end of the stream

            for path in ("/metrics", "/admin/tenants"):
                assert client.get(path, headers=ANN).status_code == 404
            large = client.get("/healthz", headers={"x-large": "a" * 200_000})
            assert large.status_code in (400, 431)
