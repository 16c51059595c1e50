"""A worker as a process: `python -m influencerai.worker`, its settings as JSON in the first line of standard input.

On SIGTERM, and when standard input closes because its parent has exited, it saves its job, requeues it and ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys

from influencerai.errors import InfluencerAIError
from influencerai.logs import configure_logs
from influencerai.settings import Settings
from influencerai.worker.worker import Worker


async def _work(settings: Settings) -> None:
    worker = Worker(settings)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, worker.stop)
    stdin = sys.stdin.fileno()

    def stop() -> None:
        loop.remove_reader(stdin)
        worker.stop()

    loop.add_reader(stdin, stop)  # nothing more is sent: readable means closed
    await worker.run()


def main() -> None:
    """Read the settings and work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    settings = Settings(**json.loads(sys.stdin.readline()))
    settings.apply_files_mask()
    configure_logs(settings)
    try:
        asyncio.run(_work(settings))
    except InfluencerAIError as error:
        logging.getLogger(__name__).error("The worker cannot work: %s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
