"""Blocking: the methods of an awaited resource, as methods that return what the others have one wait for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from influencerai.client.listing import AsyncListing, Listing

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Blocking(Generic[R]):
    """The blocking face of an awaited resource whose transport blocks."""

    def __init__(self, awaited: R) -> None:
        self._awaited = awaited


def at_once(awaitable: Awaitable[T]) -> T:
    """What a coroutine returns that never waits for a loop, since all it calls blocks instead.

    Raises:
        RuntimeError: it does wait.
    """
    steps: Generator[Any, None, T] = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    steps.close()
    raise RuntimeError("A blocking client can await nothing: give it plain functions, or take the awaited client")


def blocking(
    method: Callable[Concatenate[R, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Blocking[R], P], T]:
    """A coroutine method of the resource."""

    @wraps(method)
    def call(self: Blocking[R], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return at_once(method(self._awaited, *args, **kwargs))

    return call


def iterating(
    method: Callable[Concatenate[R, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Blocking[R], P], Generator[T, None, None]]:
    """A method of the resource that yields."""

    @wraps(method)
    def call(self: Blocking[R], /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return _iterated(method(self._awaited, *args, **kwargs))

    return call


def listing(
    method: Callable[Concatenate[R, P], AsyncListing[T]],
) -> Callable[Concatenate[Blocking[R], P], Listing[T]]:
    """A method of the resource that returns a listing."""

    @wraps(method)
    def call(self: Blocking[R], /, *args: P.args, **kwargs: P.kwargs) -> Listing[T]:
        found = method(self._awaited, *args, **kwargs)
        return Listing(iterate=lambda: _iterated(found.__aiter__()), count=lambda: at_once(found.total))

    return call


def _iterated(items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    try:
        while True:
            try:
                item = at_once(anext(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        at_once(items.aclose())
