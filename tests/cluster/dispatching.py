"""A dispatcher as a process: it joins RAY_ADDRESS, and ends when its standard input closes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import ray

from influencerai.cluster.runner import RayRunner
from influencerai.logs import configure_logs
from influencerai.settings import Settings


async def _dispatch(settings: Settings) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    loop.add_reader(sys.stdin.fileno(), ending.set)
    runner = RayRunner(settings)
    await runner.start()
    await ending.wait()
    loop.remove_reader(sys.stdin.fileno())
    await runner.stop()


def main() -> None:
    """Read the settings and dispatch."""
    settings = Settings(**json.loads(sys.stdin.readline()))
    configure_logs(settings)
    ray.init(namespace="influencerai", configure_logging=False)
    asyncio.run(_dispatch(settings))
    ray.shutdown()


if __name__ == "__main__":
    main()
