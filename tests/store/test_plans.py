"""What many jobs cost: the usual questions are answered from indexes, on both databases."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from influencerai.domain.job import JobQuery
from influencerai.store import Store, Transaction
from influencerai.store.times import MILLISECONDS_PER_DAY
from tests.databases import KINDS, Databases
from tests.store.rows import ANN, RETRIES, check_counts, rules

JOBS = 100_000
STEP = 300_000
"""Milliseconds between two jobs."""
START = 1_700_000_000_000
SNAPSHOT = '{"config": {"epochs": 3}}'
_SERIES = {
    "sqlite": f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {JOBS})",
    "postgres": f"WITH s AS (SELECT n FROM generate_series(1, {JOBS}) n)",
}
_COLUMNS = {
    "id": "CAST(100000000 + n AS VARCHAR(64))",
    "tenant_id": "'ann'",
    "type": "'lora-training'",
    "status": "CASE WHEN n % 5000 = 1 THEN 'pending' WHEN n % 5000 = 2 THEN 'running'"
    " WHEN n % 10 = 3 THEN 'failed' ELSE 'completed' END",
    "cancelled": "n % 20 = 3",
    "payload": "CAST('{}' AS JSON)",
    "snapshot": f"CAST('{SNAPSHOT}' AS JSON)",
    "output_dir": "'x'",
    "priority": "5",
    "not_before": "0",
    "fence": "0",
    "lost_attempts": "0",
    "broken_attempts": "0",
    "last_seq": "0",
    "created_at": f"{START} + n * CAST({STEP} AS BIGINT)",
    "updated_at": f"{START} + n * CAST({STEP} AS BIGINT)",
    "finished_at": f"CASE WHEN n % 5000 IN (1, 2) THEN NULL ELSE {START} + n * CAST({STEP} AS BIGINT) END",
    "lease_expires_at": "CASE WHEN n % 5000 = 2 THEN 0 END",
}
_COUNTS = """INSERT INTO counts (tenant_id, noun, first, second, count)
SELECT tenant_id, 'job', CASE WHEN cancelled THEN 'cancelled' ELSE status END, type, count(*)
FROM jobs GROUP BY 1, 3, 4"""


async def fill(store: Store, kind: str) -> None:
    """One tenant's jobs over a year: nearly all ended, a few pending and running."""
    columns = _COLUMNS if kind == "postgres" else {**_COLUMNS, "payload": "'{}'", "snapshot": f"'{SNAPSHOT}'"}
    names, values = ", ".join(columns), ", ".join(columns.values())
    async with store.database.write() as connection:
        await connection.execute(text(f"INSERT INTO jobs ({names}) {_SERIES[kind]} SELECT {values} FROM s"))
        await connection.execute(text(_COUNTS))
        if kind == "postgres":
            await connection.execute(text("ANALYZE"))  # the server does this by itself, in its own time
    await check_counts(store)


@pytest.fixture(scope="module", params=KINDS)
def full(request: pytest.FixtureRequest, databases: Databases) -> Iterator[tuple[str, str]]:
    """(kind, URL) of a database with many jobs."""
    url = databases.new(request.param)

    async def run() -> None:
        store = Store(url)
        await fill(store, request.param)
        await store.database.close()

    asyncio.run(run())
    yield request.param, url
    databases.give_back(url)


Ask = Callable[[Transaction], Awaitable[Any]]


def page(**query: Any) -> Ask:
    return lambda transaction: transaction.jobs.page(ANN, JobQuery.parse(query))


async def claim(transaction: Transaction) -> None:
    await transaction.queue.claim(node="n", rules=rules())


LAST_DAY = (START + JOBS * STEP) // MILLISECONDS_PER_DAY
QUESTIONS: dict[str, Ask] = {
    "first page": page(),
    "oldest first": page(sortOrder="asc"),
    "by change": page(sortBy="updatedAt"),
    "of a type": page(type="lora-training"),
    **{status: page(status=status) for status in ("pending", "running", "completed", "failed", "cancelled")},
    "completed, oldest first": page(status="completed", sortOrder="asc"),
    "completed by change": page(status="completed", sortBy="updatedAt"),
    "active": lambda transaction: transaction.jobs.active(ANN),
    "last completed": lambda transaction: transaction.jobs.last_completed(ANN),
    "claim": claim,
    "rescue": lambda transaction: transaction.queue.rescue(retries=RETRIES),
    "explain waiting": lambda transaction: transaction.pending_jobs.explain_waiting(dataset_wait_seconds=60),
    "unplanned": lambda transaction: transaction.pending_jobs.unplanned(limit=100),
    "series of 30 days": lambda transaction: transaction.jobs.per_day(ANN, since=LAST_DAY - 30),
}


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_usual_questions_touch_few_jobs(full: tuple[str, str]) -> None:
    kind, url = full
    store = Store(url)
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if re.search(r"\bFROM jobs\b", statement) and not statement.startswith("EXPLAIN"):
            asked.append((statement, parameters))

    event.listen(store.database._engine.sync_engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if kind == "sqlite" else "EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) "
    for name, question in QUESTIONS.items():
        for _ in range(7):  # from the sixth on, Postgres may plan without looking at the values
            asked.clear()
            with pytest.raises(ZeroDivisionError):
                await ask(store, question)
        assert asked or name == "active"
        for statement, parameters in tuple(asked):
            async with store.database.write() as connection:
                rows = (await connection.exec_driver_sql(explain + statement, parameters)).all()
            check_plan(kind, f"{name}:\n" + "\n".join(str(row[-1]) for row in rows), limited="LIMIT" in statement)
    await store.database.close()


async def ask(store: Store, question: Ask) -> None:
    async with store.write() as transaction:
        await question(transaction)
        raise ZeroDivisionError  # leave the jobs as they are


def check_plan(kind: str, plan: str, *, limited: bool) -> None:
    """No look at every job, and no sorting of many for a page."""
    if kind == "sqlite":
        for line in plan.splitlines():
            if line.startswith("SCAN jobs"):
                # An index of active jobs alone holds few.
                assert re.search("USING .*INDEX ix_jobs_(pending|running|unplanned|active_dataset)", line), plan
        return
    assert "Seq Scan on jobs" not in plan, plan
    touched = [float(count) for count in re.findall(r"actual rows=([\d.]+)", plan)]
    skipped = [int(count) for count in re.findall(r"Rows Removed by Filter: (\d+)", plan)]
    assert max([*touched, *skipped], default=0) <= (1000 if limited else 10_000), plan
