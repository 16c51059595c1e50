"""A worker for tests to kill: starts a training, prints the process ids once it trains, and is deaf to Ctrl-C."""

import asyncio
import signal
import sys
from pathlib import Path

from influencerai.job_process.messages import Prepared, Progress, TrainingRequest
from influencerai.job_process.supervisor import ForkServer, JobProcess


async def supervise(order: TrainingRequest) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
    server = ForkServer()
    child = await JobProcess.start(order, fork_server=server)
    async for message in child.messages():
        if isinstance(message, Prepared):
            await child.go(message.spec)
        elif isinstance(message, Progress) and message.event.type == "step" and message.event.step == 1:
            sys.stdout.write(f"{server.pid} {child.pid}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(supervise(TrainingRequest.model_validate_json(Path(sys.argv[1]).read_bytes())))
