"""Answer: the result of a request that changes something, returned unchanged when the request is repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from influencerai.domain.wire import WireModel
from influencerai.store import Store, Transaction
from influencerai.store.idempotency import RequestKey

Value = TypeVar("Value", bound=WireModel)


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[Value]):
    """A noun, and what its user should know of it."""

    value: Value
    warnings: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """The noun's JSON form with its warnings."""
        return {**self.value.to_wire(), "warnings": list(self.warnings)}


async def answer_once(
    store: Store,
    tenant: str,
    request: RequestKey | None,
    model: type[Value],
    make: Callable[[Transaction], Awaitable[Answer[Value]]],
) -> Answer[Value]:
    """The answer of `make`, in one transaction; a repeated `request` gets its first answer again.

    Raises:
        ConflictError: the request's key came with another body.
    """
    async with store.write() as transaction:
        if request is None:
            return await make(transaction)
        before = await transaction.idempotency_keys.answer(tenant, request)
        if before is not None:
            return Answer(value=model.model_validate(before["value"]), warnings=tuple(before["warnings"]))
        answer = await make(transaction)
        document = {"value": answer.value.to_wire(), "warnings": list(answer.warnings)}
        await transaction.idempotency_keys.keep(tenant, request, document)
        return answer
