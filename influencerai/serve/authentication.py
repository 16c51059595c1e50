"""Authentication: from a request's headers to its principal."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from typing import Any

import jwt
from starlette.datastructures import Headers

from influencerai.errors import AuthenticationError, ValidationError
from influencerai.files.tenant_folders import is_tenant
from influencerai.serve.principal import EVERY_SCOPE, Principal
from influencerai.serve.rate_limits import WrongCredentials
from influencerai.service import Service
from influencerai.settings import Settings
from influencerai.store.api_keys import PREFIX, ApiKey, KeyScope, is_secret
from influencerai.text_files import read_text_file

_REMEDY = "Send 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
_TENANT_HEADER = "x-tenant-id"
_REMEMBERED_SECONDS = 5.0
"""A key that was found is trusted for so long without asking again; so long a revoked one still works."""
_REMEMBERED_KEYS = 1000
_SHORTEST_SECRET = 32
_SCOPE_PREFIX = "influencerai:"
"""Of our words in a JWT's claim `scope`."""
_ALGORITHMS = {
    "oct": ["HS256"],
    "RSA": ["RS256", "RS384", "RS512", "PS256"],
    "EC": ["ES256", "ES384"],
    "OKP": ["EdDSA"],
}
"""Signatures that a kind of key may have made; a token does not choose."""


class Authentication:
    """Checks requests by the settings' mode."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._is_open = settings.auth == "development"
        self._tokens = Tokens(settings)
        self._found: OrderedDict[bytes, tuple[float, ApiKey]] = OrderedDict()
        self._wrong = WrongCredentials() if settings.limits_requests and not self._is_open else None

    async def principal(self, headers: Headers, *, peer: str = "", needs_tenant: bool = True) -> Principal:
        """Who sends a request with these headers; without `needs_tenant` it need not name one.

        Raises:
            AuthenticationError: it does not say, cannot prove it, or names another tenant than its credential's.
            TooManyError: that, and so did too many others from the address `peer` within a minute.
        """
        try:
            return await self._principal(headers, peer, needs_tenant=needs_tenant)
        except AuthenticationError:
            if self._wrong is not None:
                self._wrong.note(peer)
                self._wrong.check(peer)
            raise

    async def _principal(self, headers: Headers, peer: str, *, needs_tenant: bool) -> Principal:
        named = _only(headers, _TENANT_HEADER)
        if named is not None and not is_tenant(named):
            raise AuthenticationError(
                f"The header {_TENANT_HEADER} is no tenant's id", remedy="Use 1 to 64 letters, digits and _-."
            )
        if self._is_open:
            if named is None:
                raise AuthenticationError(f"The header {_TENANT_HEADER} is missing")
            return Principal(tenant=named, scopes=EVERY_SCOPE, actor=named)
        tenant, scopes, actor = await self._credential(_secret(headers), peer)
        if tenant is None:
            if "worker" not in scopes:
                return Principal(tenant="", scopes=scopes, actor=actor)
            if named is None and needs_tenant:
                raise AuthenticationError(f"A worker names its tenant by the header {_TENANT_HEADER}, which is missing")
            return Principal(tenant=named or "", scopes=scopes, actor=actor)
        if named not in (None, tenant):
            raise AuthenticationError(f"The credential is not for the tenant that {_TENANT_HEADER} names")
        return Principal(tenant=tenant, scopes=scopes, actor=actor)

    async def _credential(self, secret: str, peer: str) -> tuple[str | None, frozenset[KeyScope], str]:
        if not secret.startswith(PREFIX):
            return self._tokens.read(secret)
        key = await self._key(secret, peer)
        return key.tenant_id, frozenset({key.scope}), key.name or key.prefix

    async def _key(self, secret: str, peer: str) -> ApiKey:
        digest, now = hashlib.sha256(secret.encode()).digest(), time.monotonic()
        known = self._found.get(digest)
        if known and known[0] > now:
            return known[1]
        if known is None and self._wrong is not None:
            # Before the database is asked; a key that was right before is asked for.
            if is_secret(secret):
                self._wrong.check_look_up(peer)
            else:
                self._wrong.check(peer)
        try:
            key = await self._service.keys.authenticate(secret)
        except AuthenticationError:
            self._found.pop(digest, None)
            raise
        self._found[digest] = now + _REMEMBERED_SECONDS, key
        while len(self._found) > _REMEMBERED_KEYS:
            self._found.popitem(last=False)
        return key


class Tokens:
    """JWTs, signed with a secret of the settings or a key of a JWKS file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secret = None if settings.jwt_secret is None else settings.jwt_secret.get_secret_value()
        if self._secret is not None and len(self._secret.encode()) < _SHORTEST_SECRET:
            raise ValidationError(field_errors={"jwt_secret": [f"It should have {_SHORTEST_SECRET} bytes at least"]})
        self._keys = _read_keys(settings)

    def read(self, token: str) -> tuple[str | None, frozenset[KeyScope], str]:
        """Tenant (None for a worker's), scopes and subject of a token.

        Raises:
            AuthenticationError: it is no token of ours, or is not valid now.
        """
        if token.count(".") != 2:
            raise AuthenticationError("This is neither an API key of this server nor a JWT.", remedy=_REMEDY)
        try:
            claims = self._claims(token)
        except jwt.PyJWTError as error:
            raise AuthenticationError(f"The token cannot be accepted: {error}") from error
        except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
            raise AuthenticationError("The token cannot be read") from error
        tenant = claims.get(self._settings.jwt_tenant_claim)
        if tenant is not None and not (isinstance(tenant, str) and is_tenant(tenant)):
            raise AuthenticationError(f"The token's claim {self._settings.jwt_tenant_claim} is no tenant's id")
        scopes = _scopes(claims.get("scope", ""))
        if tenant is None and scopes & {"full", "read"}:
            raise AuthenticationError(f"The token has no claim {self._settings.jwt_tenant_claim}")
        return tenant, scopes, _printable(str(claims.get("email") or claims.get("sub") or tenant or min(scopes)))

    def _claims(self, token: str) -> dict[str, Any]:
        key, algorithms = self._key_for(token)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=self._settings.jwt_audience,
            issuer=self._settings.jwt_issuer,
            leeway=30,
            options={"require": ["exp"], "verify_aud": self._settings.jwt_audience is not None},
        )
        return claims

    def _key_for(self, token: str) -> tuple[Any, list[str]]:
        header = jwt.get_unverified_header(token)
        if self._keys and not (self._secret and header.get("alg") in _ALGORITHMS["oct"]):
            named = [key for key in self._keys if key.key_id == header.get("kid")]
            if len(named) == 1 or len(self._keys) == 1:
                key = (named or self._keys)[0]
                return key.key, _ALGORITHMS[key.key_type or ""]
            raise jwt.InvalidKeyError("its key is not known")
        if self._secret is None:
            raise jwt.InvalidKeyError("no API key, and tokens are not set up here")
        return self._secret, _ALGORITHMS["oct"]


def _scopes(claim: Any) -> frozenset[KeyScope]:
    """Scopes of a token by its claim `scope`, words in a text or in a list; other words belong to others.

    `worker` counts as it is; `read` and `admin` mean something else to many issuers, so ours have a prefix.
    """
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    found = {scope for scope in EVERY_SCOPE if f"{_SCOPE_PREFIX}{scope}" in words}
    if "worker" in words:
        found.add("worker")
    return frozenset(found or {"full"})


def _printable(text: str) -> str:
    """A name from elsewhere, fit to be stored and shown."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:200])


def _only(headers: Headers, name: str) -> str | None:
    """The header's value; servers and proxies would choose differently among several."""
    values = headers.getlist(name)
    if len(values) > 1:
        raise AuthenticationError(f"The header {name} is there {len(values)} times", remedy="Send it once.")
    return values[0] if values else None


def _secret(headers: Headers) -> str:
    key, bearer = _only(headers, "x-api-key"), _only(headers, "authorization")
    if key and bearer:
        raise AuthenticationError("There are two credentials: x-api-key and authorization", remedy="Send one of them.")
    if key:
        return key
    scheme, _, credential = (bearer or "").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise AuthenticationError("There is no credential", remedy=_REMEDY)
    return credential.strip()


def _read_keys(settings: Settings) -> list[jwt.PyJWK]:
    if settings.jwt_jwks_file is None:
        return []
    try:
        keys = jwt.PyJWKSet.from_dict(json.loads(read_text_file(settings.jwt_jwks_file).text)).keys
    except (OSError, ValueError, AttributeError, jwt.PyJWTError) as error:
        text = f"The file {settings.jwt_jwks_file} holds no keys: {error}"
        raise ValidationError(field_errors={"jwt_jwks_file": [text]}) from error
    if unknown := [key.key_type for key in keys if key.key_type not in _ALGORITHMS or key.key_type == "oct"]:
        text = f"Keys of the kind {unknown[0]} cannot be used: name public keys"
        raise ValidationError(field_errors={"jwt_jwks_file": [text]})
    return keys
