"""Principal: who sends a request, and what that allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

from influencerai.errors import PermissionDeniedError

Scope = Literal["tenant", "worker"]


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The tenant that a request is about, and by whom it was sent."""

    tenant: str
    scopes: frozenset[Scope]
    actor: str
    """Whom a change is put down to."""

    @property
    def is_limited(self) -> bool:
        """Whether requests are counted; one that is only a worker reports as often as it must."""
        return "tenant" in self.scopes

    def require(self, scope: Scope) -> None:
        """Refuse what is not for this sender.

        Raises:
            PermissionDeniedError: the credential lacks `scope`.
        """
        if scope not in self.scopes:
            raise PermissionDeniedError(
                f"This needs a {scope}'s credential.", remedy=f"Send an API key or a JWT with the scope '{scope}'."
            )


# Dependencies are coroutines, since FastAPI runs plain functions in a thread, and each asks the request itself, since
# one that stands on another is resolved in two rounds: both cost a share of a query.


async def principal_of(request: Request) -> Principal:
    """Who sends this request; the gate has put it there."""
    return _principal(request)


async def maybe_principal(request: Request) -> Principal | None:
    """Who sends this request, where the gate has asked."""
    found: Principal | None = request.scope.get("state", {}).get("principal")
    return found


async def tenant_of(request: Request) -> str:
    """The tenant of anyone who may read."""
    return _principal(request).tenant


async def owner_of(request: Request) -> str:
    """The tenant of one who may change what tenants own; a worker may not."""
    principal = _principal(request)
    principal.require("tenant")
    return principal.tenant


async def reporter_of(request: Request) -> Principal:
    """One who may report on a training."""
    principal = _principal(request)
    principal.require("worker")
    return principal


def _principal(request: Request) -> Principal:
    found: Principal = request.scope["state"]["principal"]
    return found


Anyone = Annotated[Principal, Depends(principal_of)]
MaybePrincipal = Annotated[Principal | None, Depends(maybe_principal)]
Reader = Annotated[str, Depends(tenant_of)]
Owner = Annotated[str, Depends(owner_of)]
Reporter = Annotated[Principal, Depends(reporter_of)]
