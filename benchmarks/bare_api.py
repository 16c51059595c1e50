"""The yardstick of bench_api: FastAPI and uvicorn with one route each, over the same queries of the same store.

No authentication, no error table, no request ids, no logs, no figures, no routes but these.
"""

from __future__ import annotations

import argparse
from typing import Any

import uvicorn
from fastapi import FastAPI

from influencerai.store import Store


def bare_app(database_url: str) -> FastAPI:
    """GET /jobs/{id} as FastAPI's tutorial would write it."""
    store = Store(database_url)
    app = FastAPI()

    @app.get("/jobs/{id}")
    async def get_job(id: str) -> dict[str, Any]:
        async with store.read() as transaction:
            found = await transaction.jobs.detail("bench", id)
            attempts = await transaction.jobs.attempts("bench", id)
        assert found is not None
        job, snapshot, _ = found
        return {**job.to_wire(), "training": dict(snapshot), "attempts": attempts}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("database_url")
    arguments = parser.parse_args()
    uvicorn.run(bare_app(arguments.database_url), port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
