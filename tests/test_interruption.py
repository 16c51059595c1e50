"""Signals end work that runs in an event loop, whatever swallows a cancellation on the way."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

import pytest

from influencerai.interruption import SignalReceived, run_until_signal


async def swallowing(number: signal.Signals, *, times: int) -> None:
    """Work that loses its first cancellations, as to a library whose own error replaces them."""
    os.kill(os.getpid(), number)
    for _ in range(times):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
    await asyncio.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.timeout(20)
def test_a_cancellation_that_is_swallowed_is_repeated(number: signal.Signals) -> None:
    with pytest.raises(SignalReceived) as caught:
        run_until_signal(swallowing(number, times=1))
    assert caught.value.number == number


@pytest.mark.timeout(20)
def test_ctrl_c_ends_work_also_where_the_shell_has_it_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(SignalReceived):
            run_until_signal(swallowing(signal.SIGINT, times=0))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.timeout(20)
def test_a_second_signal_abandons_the_work() -> None:
    async def work() -> None:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        await swallowing(signal.SIGINT, times=1)

    with pytest.raises(SignalReceived) as caught:
        run_until_signal(work())
    assert caught.value.number == signal.SIGTERM


def test_results_and_errors_pass_and_handlers_are_put_back() -> None:
    async def work(result: int | Exception) -> int:
        if isinstance(result, Exception):
            raise result
        return result

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run_until_signal(work(3)) == 3
    with pytest.raises(LookupError):
        run_until_signal(work(LookupError()))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
