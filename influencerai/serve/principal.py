"""Principal: who sends a request, and what that allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

from influencerai.errors import PermissionDeniedError
from influencerai.store.api_keys import KeyScope

Right = Literal["records", "files", "change", "report", "metrics", "admin"]
"""Read jobs, datasets and configurations; read pictures, captions and LoRA files; change what the tenant owns; report
on a job or a dataset; read /metrics; see all tenants and set their quotas."""
RIGHTS: dict[KeyScope, frozenset[Right]] = {
    "full": frozenset({"records", "files", "change"}),
    "read": frozenset({"records", "files"}),
    "worker": frozenset({"records", "report", "metrics"}),
    "metrics": frozenset({"metrics"}),
    "admin": frozenset({"admin", "metrics"}),
}
"""Workers read /metrics because their keys did before there was a scope for it."""
EVERY_SCOPE: frozenset[KeyScope] = frozenset(RIGHTS)
_IN_WORDS: dict[Right, str] = {
    "records": "reading a tenant's jobs, datasets and configurations",
    "files": "reading pictures, captions and LoRA files",
    "change": "changing what the tenant owns",
    "report": "reporting on a job",
    "metrics": "reading /metrics",
    "admin": "/admin",
}


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The tenant that a request is about, and by whom it was sent."""

    tenant: str
    """Empty where the credential belongs to no tenant and the request needs none."""
    scopes: frozenset[KeyScope]
    actor: str
    """Whom a change is put down to."""

    @property
    def is_limited(self) -> bool:
        """Whether requests are counted: those of a tenant's own credentials are."""
        return not self.scopes.isdisjoint(("full", "read"))

    def may(self, *rights: Right) -> bool:
        """Whether one of the scopes gives one of these rights."""
        return any(not RIGHTS[scope].isdisjoint(rights) for scope in self.scopes)

    def require(self, *rights: Right) -> None:
        """Refuse a sender that has none of these rights.

        Raises:
            PermissionDeniedError: names the scopes that the credential has, and those that it would need.
        """
        if not self.may(*rights):
            needed = [scope for scope, given in RIGHTS.items() if not given.isdisjoint(rights)]
            raise PermissionDeniedError(
                f"The credential's scope {_listed(sorted(self.scopes), 'and')} does not allow "
                f"{_IN_WORDS[rights[0]]}: that needs the scope {_listed(needed, 'or')}.",
                remedy="Send a credential with that scope; the operator makes one with `influencerai keys create`.",
            )


# Dependencies are coroutines, since FastAPI runs plain functions in a thread, and each asks the request itself, since
# one that stands on another is resolved in two rounds: both cost a share of a query.


async def maybe_principal(request: Request) -> Principal | None:
    """Who sends this request, where the gate has asked."""
    found: Principal | None = request.scope.get("state", {}).get("principal")
    return found


async def tenant_of(request: Request) -> str:
    """The tenant of one who may read its records."""
    return _with_right(request, "records").tenant


async def file_reader_of(request: Request) -> str:
    """The tenant of one who may read pictures, captions and LoRA files; a worker may not."""
    return _with_right(request, "files").tenant


async def owner_of(request: Request) -> str:
    """The tenant of one who may change what tenants own; a worker may not."""
    return _with_right(request, "change").tenant


async def reporter_of(request: Request) -> Principal:
    """One who may report on a training."""
    return _with_right(request, "report")


async def editor_of(request: Request) -> Principal:
    """One who may set a dataset's status: its owner, or a worker that prepares it."""
    return _with_right(request, "change", "report")


async def admin_of(request: Request) -> Principal:
    """One who may see all tenants and set their quotas."""
    return _with_right(request, "admin")


def _with_right(request: Request, *rights: Right) -> Principal:
    found: Principal = request.scope["state"]["principal"]
    found.require(*rights)
    return found


def _listed(scopes: Iterable[str], conjunction: str) -> str:
    return f" {conjunction} ".join(f"'{scope}'" for scope in scopes)


MaybePrincipal = Annotated[Principal | None, Depends(maybe_principal)]
Reader = Annotated[str, Depends(tenant_of)]
FileReader = Annotated[str, Depends(file_reader_of)]
Owner = Annotated[str, Depends(owner_of)]
Reporter = Annotated[Principal, Depends(reporter_of)]
Editor = Annotated[Principal, Depends(editor_of)]
Admin = Annotated[Principal, Depends(admin_of)]
