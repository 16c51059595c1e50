"""Who may come in: tenants by header in development; API keys and JWTs in production."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from influencerai.errors import ValidationError
from influencerai.serve import authentication
from influencerai.serve.app import create_app
from influencerai.service import Service
from influencerai.settings import Settings
from tests.serve.running import ANN, BOB, UNKNOWN_ID, Api, checked_error, running

pytestmark = pytest.mark.anyio

SECRET = "a secret of the settings, of more than 32 bytes"
OTHER_SECRET = "another secret, of more than 32 bytes too"


@pytest.fixture
async def production(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Api]:
    settings = Settings(root=tmp_path, database_url=sqlite_url, auth="production", rate_limits=False, jwt_secret=SECRET)
    async with running(settings) as api:
        yield api


async def ask(
    api: Api, headers: Mapping[str, str], path: str = "/datasets", method: str = "GET", **options: Any
) -> Any:
    return await api.client.request(method, path, headers=dict(headers), **options)


async def refused(api: Api, headers: Mapping[str, str], *, path: str = "/datasets") -> str:
    response = await ask(api, headers, path)
    body = checked_error(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"
    return str(body["message"])


def bearer(token: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", **{name.replace("_", "-"): text for name, text in headers.items()}}


def token(
    secret: Any = SECRET, algorithm: str = "HS256", *, headers: dict[str, Any] | None = None, **claims: Any
) -> str:
    claims = {"tenant_id": ANN, "exp": time.time() + 600, "email": "ann@example.com", **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, secret, algorithm, headers=headers)


async def test_development_trusts_the_header(api: Api) -> None:
    assert "missing" in await refused(api, {})
    assert (await ask(api, {"x-tenant-id": "A-z_0.9"})).status_code == 200
    assert (await ask(api, {"x-tenant-id": "x" * 64, "authorization": "Bearer whatever"})).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["development", "production"])
async def test_what_needs_no_credential(tmp_path: Path, sqlite_url: str, mode: Any) -> None:
    async with running(Settings(root=tmp_path, database_url=sqlite_url, auth=mode)) as api:
        for path in ("/healthz", "/readyz", "/api", "/api/openapi.json"):
            assert (await ask(api, {}, path)).status_code == 200, path
        assert (await ask(api, {}, "/datasets", "OPTIONS")).status_code != 401
        assert (await ask(api, {}, "/metrics")).status_code == (200 if mode == "development" else 401)
        for path in ("/", "/apis", "/api-docs", "/healthz/", "/healthzz", "/nowhere"):
            checked_error(await ask(api, {}, path), 401)


async def test_api_keys(production: Api) -> None:
    key, secret = await production.service.keys.create(tenant=ANN, name="notebook")
    assert (await ask(production, bearer(secret))).status_code == 200
    assert (await ask(production, {"x-api-key": secret})).status_code == 200
    assert (await ask(production, {"authorization": f"bearer  {secret} "})).status_code == 200
    for wrong in (
        secret[:-1],
        secret + "x",
        secret.upper(),
        key.prefix,
        key.id,
        "iak_",
        "iak_" + "x" * 5000,
        "sk_" + secret[4:],
    ):
        assert await refused(production, bearer(wrong))
        assert wrong not in (await ask(production, bearer(wrong))).text
    for headers in (
        {},
        {"authorization": secret},
        {"authorization": f"Basic {secret}"},
        {"authorization": "Bearer"},
        {"x-tenant-id": ANN},
    ):
        assert "credential" in await refused(production, headers)
    assert (await ask(production, bearer(secret, x_tenant_id=ANN))).status_code == 200
    assert "not for the tenant" in await refused(production, bearer(secret, x_tenant_id=BOB))


async def test_a_revoked_key_is_forgotten_in_seconds(production: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert authentication._REMEMBERED_SECONDS <= 10
    monkeypatch.setattr(authentication, "_REMEMBERED_SECONDS", 0.2)
    key, secret = await production.service.keys.create(tenant=ANN)
    assert (await ask(production, bearer(secret))).status_code == 200
    await production.service.keys.revoke(key.id)
    deadline = time.monotonic() + 3
    while (await ask(production, bearer(secret))).status_code == 200:
        assert time.monotonic() < deadline
    await refused(production, bearer(secret))


async def test_tokens_signed_with_the_secret(production: Api) -> None:
    assert (await ask(production, bearer(token()))).status_code == 200
    assert (await ask(production, bearer(token(exp=time.time() - 10)))).status_code == 200  # clocks differ
    bad = {
        "another secret": token(OTHER_SECRET),
        "expired": token(exp=time.time() - 600),
        "no end": token(exp=None),
        "no tenant": token(tenant_id=None),
        "odd tenant": token(tenant_id="../x"),
        "number": token(tenant_id=7),
        "list": token(tenant_id=[ANN]),
        "empty": token(tenant_id=""),
        "later": token(nbf=time.time() + 600),
        "another algorithm": token(SECRET + SECRET, "HS512"),
        "endless": token(exp=float("inf")),
        "unsigned": token(None, "none"),
        "cut": token()[:-4],
        "parts": "a.b.c",
        "words": "hello",
        "deep": base64.urlsafe_b64encode(b'{"alg":' * 5000).decode() + ".e30.x",
        "odd header": base64.urlsafe_b64encode(b'{"alg": {"a": 1}}').decode().rstrip("=") + ".e30.x",
    }
    for why, text in bad.items():
        message = await refused(production, bearer(text))
        assert SECRET not in message, why
        assert text not in message, why
    assert "not for the tenant" in await refused(production, bearer(token(), x_tenant_id=BOB))


async def test_who_a_token_is_stands_in_what_it_changes(production: Api) -> None:
    headers = bearer(token(email="ann\ud800\0@example.com"))
    body = {"kind": "lora-training", "path": "data/x", "meta": {"free": 1}}
    made = (await ask(production, headers, "/datasets", "POST", json=body)).json()
    changed = await ask(production, headers, f"/datasets/{made['id']}/status", "PATCH", json={"status": "ready"})
    assert changed.status_code == 200, changed.text
    assert changed.json()["meta"] == {"free": 1, "lastUpdatedBy": "ann\ufffd\ufffd@example.com"}


async def test_audience_issuer_and_claim(tmp_path: Path, sqlite_url: str) -> None:
    settings = Settings(
        root=tmp_path, database_url=sqlite_url, auth="production", jwt_secret=SECRET,
        jwt_audience="influencerai", jwt_issuer="https://login", jwt_tenant_claim="org",
    )  # fmt: skip
    async with running(settings) as api:
        good: dict[str, Any] = {"aud": "influencerai", "iss": "https://login", "org": ANN}
        assert (await ask(api, bearer(token(**good)))).status_code == 200
        changes: list[dict[str, Any]] = [
            {"aud": None},
            {"aud": "x"},
            {"iss": None},
            {"iss": "https://else"},
            {"org": None},
        ]
        for change in changes:
            await refused(api, bearer(token(**{**good, **change})))


@pytest.mark.slow
async def test_tokens_signed_with_keys_of_a_file(tmp_path: Path, sqlite_url: str) -> None:
    rsa_key, ec_key = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    keys = [
        {**jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True), "kid": "rsa", "use": "sig"},
        {**jwt.algorithms.ECAlgorithm.to_jwk(ec_key.public_key(), as_dict=True), "kid": "ec"},
    ]
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": keys}))
    settings: dict[str, Any] = {
        "root": tmp_path,
        "database_url": sqlite_url,
        "auth": "production",
        "jwt_jwks_file": file,
    }
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    confused = by_hand({"alg": "HS256", "kid": "rsa"}, public)
    good = [token(rsa_key, "RS256", headers={"kid": "rsa"}), token(ec_key, "ES256", headers={"kid": "ec"})]
    bad = [
        token(rsa_key, "RS256", headers={"kid": "unknown"}),
        token(rsa_key, "RS256"),
        token(rsa_key, "RS256", headers={"kid": "ec"}),
        token(rsa.generate_private_key(65537, 2048), "RS256", headers={"kid": "rsa"}),
        token(None, "none", headers={"kid": "rsa"}),
        confused,
        by_hand({"alg": "HS256", "kid": "rsa"}, json.dumps(keys[0]).encode()),
    ]
    async with running(Settings(**settings)) as api:
        for text in good:
            assert (await ask(api, bearer(text))).status_code == 200
        for text in (*bad, token()):
            await refused(api, bearer(text))
    async with running(Settings(**settings, jwt_secret=SECRET)) as api:
        for text in (*good, token()):
            assert (await ask(api, bearer(text))).status_code == 200
        for text in (*bad, token(OTHER_SECRET)):
            await refused(api, bearer(text))


async def test_keys_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode(), "kid": "x"}
    for text in ("", "{}", "[]", '{"keys": []}', json.dumps({"keys": [secret]}), "\0"):
        file.write_text(text)
        with pytest.raises(ValidationError, match="jwt_jwks_file"):
            create_app(Service(Settings(root=tmp_path, auth="production", jwt_jwks_file=file)))
    with pytest.raises(ValidationError, match="32 bytes"):
        create_app(Service(Settings(root=tmp_path, auth="production", jwt_secret="short")))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["key", "token"])
async def test_a_worker_reports_and_reads_and_no_more(production: Api, kind: str) -> None:
    _, owner = await production.service.keys.create(tenant=ANN)
    _, worker = await production.service.keys.create(tenant=None)
    if kind == "token":
        worker = token(tenant_id=None, scope="read worker")
    body = {"kind": "lora-training", "path": "data/x"}
    dataset = (await ask(production, bearer(owner), "/datasets", "POST", json=body)).json()
    config = (
        await ask(production, bearer(owner), "/lora-configs", "POST", json={"name": "x", "modelName": "y"})
    ).json()
    payload = {"datasetId": dataset["id"], "loraConfigId": config["id"]}
    draft = {"type": "lora-training", "payload": payload}
    job = (await ask(production, bearer(owner), "/jobs", "POST", json=draft)).json()

    assert "x-tenant-id" in await refused(production, bearer(worker))
    mine, theirs = bearer(worker, x_tenant_id=ANN), bearer(worker, x_tenant_id=BOB)
    for path in (
        "/datasets",
        f"/datasets/{dataset['id']}",
        "/lora-configs",
        f"/jobs/{job['id']}",
        f"/jobs/{job['id']}/events",
    ):
        assert (await ask(production, mine, path)).status_code == 200
    checked_error(await ask(production, theirs, f"/jobs/{job['id']}"), 404)
    checked_error(await ask(production, theirs, f"/jobs/{job['id']}", "PATCH", json={"status": "running"}), 404)
    forbidden = [
        ("POST", "/datasets", body),
        ("PATCH", f"/datasets/{dataset['id']}", {"meta": {}}),
        ("DELETE", f"/datasets/{dataset['id']}", None),
        ("POST", "/lora-configs", {"name": "new", "modelName": "y"}),
        ("PATCH", f"/lora-configs/{config['id']}", {"epochs": 1}),
        ("DELETE", f"/lora-configs/{config['id']}", None),
        ("POST", "/jobs", draft),
        ("POST", f"/jobs/{job['id']}/cancel", None),
        ("POST", f"/jobs/{job['id']}/retry", None),
        ("DELETE", f"/jobs/{job['id']}", None),
        ("PUT", f"/datasets/{dataset['id']}/images/a.png/caption", {"caption": "x"}),
    ]
    before = await production.rows()
    for method, path, document in forbidden:
        checked_error(await ask(production, mine, path, method, json=document), 403)
    upload = {"files": ("a.png", b"x")}
    checked_error(await ask(production, mine, f"/datasets/{dataset['id']}/images", "POST", files=upload), 403)
    assert await production.rows() == before

    refusal = await ask(production, bearer(owner), f"/jobs/{job['id']}", "PATCH", json={"status": "running"})
    assert "worker" in checked_error(refusal, 403)["message"]
    assert (await ask(production, mine, f"/jobs/{job['id']}", "PATCH", json={"status": "running"})).status_code == 200
    status = {"status": "ready"}
    for report in ({}, {"status": "running"}, {"result": {"error": "x"}}, {"costTok": 1}):
        for sender in (mine, bearer(owner)):
            path, change = f"/jobs/{job['id']}", {"metadata": {"orderId": "1"}, **report}
            if report or sender is mine:
                checked_error(await ask(production, sender, path, "PATCH", json=change), 403)
    assert (await ask(production, mine, f"/jobs/{job['id']}")).json()["metadata"] == {}
    changed = await ask(production, mine, f"/datasets/{dataset['id']}/status", "PATCH", json=status)
    assert changed.json()["meta"]["lastUpdatedBy"]
    assert (await ask(production, bearer(worker), "/metrics")).status_code == 200
    checked_error(await ask(production, bearer(owner), "/metrics"), 403)
    checked_error(await ask(production, mine, f"/jobs/{UNKNOWN_ID}", "PATCH", json={}), 404)


READS = ("/datasets", "/datasets/{dataset}", "/lora-configs", "/jobs", "/jobs/{job}", "/jobs/{job}/events", "/cluster")
FILES = (
    "/datasets/{dataset}/report",
    "/datasets/{dataset}/images",
    "/datasets/{dataset}/images/0.png/thumbnail",
    "/jobs/{job}/artifacts/lora.safetensors",
)
CHANGES = (("POST", "/datasets"), ("DELETE", "/datasets/{dataset}"), ("POST", "/jobs/{job}/cancel"))
OPENED = {
    "full": (READS, FILES, CHANGES),
    "read": (READS, FILES, ()),
    "worker": ((*READS, "/metrics"), (), ()),
    "metrics": (("/metrics",), (), ()),
    "admin": (("/metrics",), (), ()),
}


@pytest.mark.parametrize("kind", ["key", "token"])
@pytest.mark.parametrize("scope", OPENED)
async def test_what_each_scope_opens(production: Api, scope: Any, kind: str) -> None:
    _, owner = await production.service.keys.create(tenant=ANN)
    tenant = ANN if scope in ("full", "read") else None
    if kind == "key":
        _, secret = await production.service.keys.create(tenant=tenant, scope=scope)
    else:  # words of others mean nothing, in a text or in a list
        secret = token(tenant_id=tenant, scope=["openid", f"influencerai:{scope}"])
    production.pictures(root=production.root / "tenants" / ANN)
    headers = bearer(owner)
    body = {"kind": "lora-training", "path": "data/datasets/me"}
    dataset = (await ask(production, headers, "/datasets", "POST", json=body)).json()["id"]
    config = {"name": "x", "modelName": "sd15"}
    config_id = (await ask(production, headers, "/lora-configs", "POST", json=config)).json()["id"]
    draft = {"type": "lora-training", "payload": {"datasetId": dataset, "loraConfigId": config_id}}
    job = (await ask(production, headers, "/jobs", "POST", json=draft)).json()["id"]

    own = bearer(secret, **({"x_tenant_id": ANN} if scope == "worker" else {}))
    reads, files, changes = OPENED[scope]
    for path in (*READS, *FILES, "/metrics", "/nowhere"):
        response = await ask(production, own, path.format(dataset=dataset, job=job))
        if path in reads or path in files:
            assert response.status_code == (404 if "artifacts/" in path else 200), path
        elif path == "/nowhere" and READS[0] in reads:
            checked_error(response, 404)
        else:
            message = checked_error(response, 403)["message"]
            assert f"'{scope}'" in message, message
    before = await production.rows()
    for method, path in CHANGES:
        sent = await ask(
            production, own, path.format(dataset=dataset, job=job), method, json=body if method == "POST" else None
        )
        assert (sent.status_code != 403) == ((method, path) in changes), (method, path)
    assert (await production.rows() == before) == (scope != "full")


async def test_an_expired_key_says_so(production: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_REMEMBERED_SECONDS", 0.0)
    _, secret = await production.service.keys.create(tenant=ANN, lifetime=timedelta(milliseconds=300))
    assert (await ask(production, bearer(secret))).status_code == 200
    await asyncio.sleep(0.35)
    assert "expired on 20" in await refused(production, bearer(secret))


async def test_a_used_key_shows_when(production: Api) -> None:
    _, secret = await production.service.keys.create(tenant=ANN)
    await ask(production, bearer(secret))
    deadline = time.monotonic() + 20
    while (await production.service.keys.list())[0].used_at is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_a_workers_key_may_be_for_one_tenant(production: Api) -> None:
    _, secret = await production.service.keys.create(tenant=ANN, scope="worker")
    assert (await ask(production, bearer(secret), "/jobs")).status_code == 200
    assert "not for the tenant" in await refused(production, bearer(secret, x_tenant_id=BOB))


async def test_a_workers_token_of_one_tenant_stays_with_it(production: Api) -> None:
    headers = bearer(token(scope="worker"), x_tenant_id=BOB)
    assert "not for the tenant" in await refused(production, headers)
    assert (await ask(production, bearer(token(scope="worker")))).status_code == 200


def by_hand(header: dict[str, str], key: bytes) -> str:
    """A token of HMAC over any key, which the library refuses to make."""
    claims = {"tenant_id": ANN, "exp": int(time.time()) + 600}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.new(key, b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


async def test_what_is_no_credential_at_all_is_said_in_words(production: Api) -> None:
    answer = await ask(production, bearer("wrong"))
    assert answer.status_code == 401
    assert answer.json()["message"] == "This is neither an API key of this server nor a JWT."
    assert "Bearer KEY" in answer.json()["remedy"]


async def test_what_is_named_twice_is_refused(api: Api, production: Api) -> None:
    """Servers and proxies would choose differently."""
    assert "x-tenant-id" in await refused_twice(api, [("x-tenant-id", ANN), ("x-tenant-id", BOB)])
    assert "x-tenant-id" in await refused_twice(api, [("x-tenant-id", ANN), ("x-tenant-id", ANN)])
    _, ann = await production.service.keys.create(tenant=ANN)
    _, bob = await production.service.keys.create(tenant=BOB)
    own, other = ("authorization", f"Bearer {ann}"), ("authorization", f"Bearer {bob}")
    assert "authorization" in await refused_twice(production, [own, other])
    assert "authorization" in await refused_twice(production, [own, own])
    assert "x-api-key" in await refused_twice(production, [("x-api-key", ann), ("x-api-key", bob)])
    assert "two credentials" in await refused_twice(production, [own, ("x-api-key", bob)])
    assert "x-tenant-id" in await refused_twice(production, [own, ("x-tenant-id", ANN), ("x-tenant-id", BOB)])
    assert (await ask(production, dict([own]))).status_code == 200


async def refused_twice(api: Api, headers: list[tuple[str, str]]) -> str:
    return str(checked_error(await api.client.get("/datasets", headers=headers), 401)["message"])


@pytest.mark.parametrize("scope", ["worker", ["worker"], ["other", "worker"], "other worker"])
async def test_a_scope_may_be_a_list(production: Api, scope: Any) -> None:
    """Some issuers write one; a worker's token must not be taken for its tenant's own."""
    headers = bearer(token(scope=scope))
    assert (await ask(production, headers)).status_code == 200
    checked_error(await ask(production, headers, method="POST", json={"kind": "lora-training", "path": "x"}), 403)


async def test_readiness_is_detailed_for_those_who_may_know(production: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger sees whether the server is ready, and does not make it ask the database again and again."""
    asked = 0
    ping = production.service.store.database.ping

    async def counted() -> None:
        nonlocal asked
        asked += 1
        await ping()

    monkeypatch.setattr(production.service.store.database, "ping", counted)
    for _ in range(20):
        assert (await production.client.get("/readyz")).json() == {"status": "ready", "checks": {}}
    assert asked <= 2
    _, key = await production.service.keys.create(tenant=ANN)
    checks = (await ask(production, bearer(key), "/readyz")).json()["checks"]
    assert checks.keys() == {"database", "disk", "runner"}
    checked_error(await ask(production, bearer("iak_wrong"), "/readyz"), 401)
