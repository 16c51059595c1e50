"""What users keep: datasets, configs and jobs, their pages, and that tenants do not see each other."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influencerai.domain.dataset import DatasetDraft, DatasetQuery
from influencerai.domain.job import JobQuery
from influencerai.domain.lora_config_record import LoraConfigQuery
from influencerai.errors import ConflictError, InUseError, NotFoundError
from influencerai.store import Store, Transaction
from influencerai.store.ids import new_id
from tests.databases import KINDS, Databases
from tests.store.rows import (
    ANN,
    BOB,
    add_config,
    add_dataset,
    add_job,
    cancel,
    check_counts,
    claimed,
    events_of,
    finish,
    job_snapshot,
    lora_config,
    new_job,
    report,
    stored,
)

pytestmark = pytest.mark.anyio


async def test_a_dataset_is_kept_edited_and_removed(store: Store) -> None:
    draft = DatasetDraft.parse({"kind": "fine-tuning", "path": "data/x", "meta": {"triggerWord": "ohwx"}})
    async with store.write() as transaction:
        made = await transaction.datasets.add(ANN, draft, status="pending", report={"images": []})
    assert (made.kind, made.path, made.status, made.meta) == ("fine-tuning", "data/x", "pending", draft.meta)
    assert made.created_at == made.updated_at
    await asyncio.sleep(0.002)
    async with store.write() as transaction:
        changed = await transaction.datasets.edit(ANN, made.id, lambda found: {"status": "ready", "meta": {"a": 1}})
        same = await transaction.datasets.edit(ANN, made.id, lambda found: {})
    assert changed == same
    assert changed is not None
    assert (changed.status, changed.meta, changed.created_at) == ("ready", {"a": 1}, made.created_at)
    assert changed.updated_at > made.updated_at
    async with store.read() as transaction:
        assert await transaction.datasets.get(ANN, made.id) == changed
        assert await transaction.datasets.report(ANN, made.id) == {"images": []}
        assert await transaction.datasets.has_path(ANN, "data/x")
        assert not await transaction.datasets.has_path(ANN, "data/y")
        assert not await transaction.datasets.has_path(BOB, "data/x")
    async with store.write() as transaction:
        assert await transaction.datasets.remove(ANN, made.id)
        assert not await transaction.datasets.remove(ANN, made.id)
        assert not await transaction.datasets.has_path(ANN, "data/x")
    await check_counts(store)


async def test_a_change_that_raises_leaves_everything_as_it_was(store: Store) -> None:
    dataset, config = await add_dataset(store), await add_config(store)
    job = await add_job(store, dataset_id=dataset.id)

    def refuse(_: Any) -> Any:
        raise ZeroDivisionError

    async def both(second: Callable[[Transaction], Awaitable[Any]]) -> None:
        async with store.write() as transaction:
            await transaction.datasets.edit(ANN, dataset.id, lambda _: {"status": "failed"})
            await second(transaction)

    for edit in (
        lambda transaction: transaction.datasets.edit(ANN, dataset.id, refuse),
        lambda transaction: transaction.lora_configs.edit(ANN, config.id, refuse),
        lambda transaction: transaction.jobs.remove(ANN, job.job.id, check=refuse),
        lambda transaction: transaction.queue.report(ANN, job.job.id, refuse, seconds=9),
        lambda transaction: transaction.queue.cancel(ANN, job.job.id, refuse),
    ):
        with pytest.raises(ZeroDivisionError):
            await both(edit)
    async with store.read() as transaction:
        assert await transaction.datasets.get(ANN, dataset.id) == dataset
        assert await transaction.lora_configs.get(ANN, config.id) == config
        assert await transaction.jobs.get(ANN, job.job.id) == job.job
    await check_counts(store)


async def test_a_config_is_kept_edited_and_removed(store: Store) -> None:
    made = await add_config(store, name="  Face ", networkAlpha=8, meta={"seed": 7}, isDefault=True)
    assert (made.name, made.network_alpha, made.meta, made.is_default) == ("Face", 8, {"seed": 7}, True)
    async with store.read() as transaction:
        assert await transaction.lora_configs.get(ANN, made.id) == made
        assert await transaction.lora_configs.default(ANN) == made
    await asyncio.sleep(0.002)
    async with store.write() as transaction:
        changed = await transaction.lora_configs.edit(
            ANN, made.id, lambda config: config.model_copy(update={"epochs": 99})
        )
    assert changed is not None
    assert changed.config == made.config.model_copy(update={"epochs": 99})
    assert changed.created_at == made.created_at
    assert changed.updated_at > made.updated_at
    async with store.write() as transaction:
        assert await transaction.lora_configs.remove(ANN, made.id) == changed
        assert await transaction.lora_configs.remove(ANN, made.id) is None
    await check_counts(store)


async def test_a_name_is_taken_once_per_tenant(store: Store) -> None:
    made, other = await add_config(store), await add_config(store, name="Face")
    await add_config(store, BOB)

    async def rename() -> None:
        async with store.write() as transaction:
            await transaction.lora_configs.edit(ANN, other.id, lambda _: lora_config("face"))

    for attempt in (add_config(store), rename()):
        with pytest.raises(ConflictError, match="'face' already exists") as raised:
            await attempt
        assert raised.value.existing_id == made.id
    async with store.write() as transaction:
        assert await transaction.lora_configs.edit(ANN, made.id, lambda _: lora_config("face", epochs=3))
    await check_counts(store)


async def test_a_transaction_goes_on_after_a_refusal(store: Store) -> None:
    dataset, config = await add_dataset(store), await add_config(store)
    await add_job(store, dataset_id=dataset.id, config_id=config.id)
    async with store.write() as transaction:
        with pytest.raises(InUseError) as in_use:
            await transaction.lora_configs.remove(ANN, config.id)
        with pytest.raises(InUseError):
            await transaction.datasets.remove(ANN, dataset.id)
        with pytest.raises(ConflictError):
            await transaction.lora_configs.add(ANN, lora_config())
        with pytest.raises(NotFoundError):
            await transaction.jobs.add(ANN, new_job(dataset_id="gone"))
        await transaction.lora_configs.add(ANN, lora_config("second"))
    assert in_use.value.jobs == 1
    async with store.read() as transaction:
        assert (await transaction.lora_configs.page(ANN, LoraConfigQuery())).total == 2
    await check_counts(store)


async def test_the_default_is_one_and_moves(store: Store) -> None:
    first = await add_config(store, name="first", isDefault=True)
    second = await add_config(store, name="second", isDefault=True)
    bobs = await add_config(store, BOB, isDefault=True)

    async def defaults() -> list[str]:
        async with store.read() as transaction:
            page = await transaction.lora_configs.page(ANN, LoraConfigQuery(is_default=True))
            assert page.total == len(page.items)
            assert await transaction.lora_configs.default(BOB) == bobs
            return [item.id for item in page.items]

    assert await defaults() == [second.id]
    async with store.write() as transaction:
        await transaction.lora_configs.edit(ANN, first.id, lambda found: found.model_copy(update={"is_default": True}))
    assert await defaults() == [first.id]
    async with store.write() as transaction:
        await transaction.lora_configs.edit(ANN, first.id, lambda found: found.model_copy(update={"is_default": False}))
    assert await defaults() == []
    await check_counts(store)


async def test_what_an_active_job_uses_stays(store: Store) -> None:
    dataset, config = await add_dataset(store), await add_config(store)
    first = await add_job(store, dataset_id=dataset.id, config_id=config.id)
    second = await add_job(store, dataset_id=dataset.id, config_id=config.id)
    await claimed(store)

    async def users() -> int:
        try:
            async with store.write() as transaction:
                await transaction.datasets.remove(ANN, dataset.id)
        except InUseError as error:
            return error.jobs
        return 0

    assert await users() == 2
    await report(store, second.job.id, status="failed")
    assert await users() == 1
    with pytest.raises(InUseError):
        async with store.write() as transaction:
            await transaction.lora_configs.remove(ANN, config.id)
    async with store.write() as transaction:
        await transaction.jobs.remove(ANN, first.job.id, check=lambda _: None)
    assert await users() == 0
    async with store.write() as transaction:
        assert await transaction.lora_configs.remove(ANN, config.id)
    await check_counts(store)


@pytest.mark.parametrize("missing", ["dataset", "config"])
async def test_a_job_of_what_is_not_the_tenants_is_refused(store: Store, missing: str) -> None:
    dataset = await add_dataset(store, BOB if missing == "dataset" else ANN)
    config = await add_config(store, BOB if missing == "config" else ANN)
    with pytest.raises(NotFoundError) as raised:
        await add_job(store, ANN, dataset_id=dataset.id, config_id=config.id)
    assert raised.value.message in (f"Dataset {dataset.id} not found", f"LoRA config {config.id} not found")
    async with store.read() as transaction:
        assert (await transaction.jobs.page(ANN, JobQuery())).items == ()


async def test_a_job_is_kept_as_it_was_made(store: Store) -> None:
    dataset, config = await add_dataset(store), await add_config(store)
    snapshot = job_snapshot(dataset_id=dataset.id, meta={"seed": 7, "minSnrGamma": None})
    made = await add_job(
        store,
        dataset_id=dataset.id,
        config_id=config.id,
        payload={"datasetId": dataset.id, "note": "ü"},
        snapshot=snapshot,
        plan={"micro": 2},
        retry_of="earlier",
    )
    assert made == await stored(store, made.job.id)
    async with store.read() as transaction:
        assert await transaction.jobs.get(ANN, made.job.id) == made.job
        assert await transaction.jobs.detail(ANN, made.job.id) == (made.job, snapshot.to_wire(), "data/loras/face")
    assert (made.job.status, made.job.payload) == ("pending", {"datasetId": dataset.id, "note": "ü"})
    assert (made.job.started_at, made.job.finished_at, made.job.result, made.job.waiting) == (None, None, None, None)
    assert (made.snapshot, made.plan, made.job.retry_of, made.output_dir) == (
        snapshot,
        {"micro": 2},
        "earlier",
        "data/loras/face",
    )
    assert (made.dataset_id, made.config_id, made.fence, made.owner) == (dataset.id, config.id, 0, None)
    assert await events_of(store, made.job.id) == [(1, "status", {"status": "pending"})]


async def test_an_output_folder_is_reserved_once_until_its_job_is_deleted(store: Store) -> None:
    first, second = await add_job(store), await add_job(store)
    assert first.output_dir == "data/loras/face"
    assert second.output_dir == f"data/loras/face-{second.job.id}"
    assert (await add_job(store, BOB)).output_dir == "data/loras/face"
    async with store.write() as transaction:
        await transaction.jobs.remove(ANN, first.job.id, check=lambda _: None)
    assert (await add_job(store)).output_dir == "data/loras/face"


async def test_a_deleted_job_leaves_nothing(store: Store) -> None:
    made = await add_job(store)
    lease = await claimed(store)
    async with store.write() as transaction:
        removed = await transaction.jobs.remove(ANN, made.job.id, check=lambda _: None)
    assert removed is not None
    async with store.read() as transaction:
        assert await transaction.jobs.get(ANN, lease.job_id) is None
        assert await transaction.events.after(lease.job_id, 0, limit=9) == []
        assert await transaction.events.last_numbers([lease.job_id]) == {}
        assert await transaction.jobs.attempts(ANN, lease.job_id) == []
    with pytest.raises(NotFoundError):
        async with store.write() as transaction:
            await transaction.events.append(lease.job_id, ("note", {}))
    await check_counts(store)


async def test_another_tenant_sees_nothing_and_changes_nothing(store: Store) -> None:
    dataset, config = await add_dataset(store), await add_config(store, isDefault=True)
    job = await add_job(store, dataset_id=dataset.id, config_id=config.id)
    other = await add_job(store, output_dir="b")
    await finish(store, await claimed(store))
    async with store.write() as transaction:
        datasets, configs, jobs, queue = (
            transaction.datasets,
            transaction.lora_configs,
            transaction.jobs,
            transaction.queue,
        )
        seen: list[Any] = [
            await datasets.get(BOB, dataset.id),
            await datasets.report(BOB, dataset.id),
            await datasets.edit(BOB, dataset.id, lambda _: {"status": "failed"}),
            await configs.get(BOB, config.id),
            await configs.default(BOB),
            await configs.edit(BOB, config.id, lambda found: found.model_copy(update={"epochs": 1})),
            await configs.remove(BOB, config.id),
            await jobs.get(BOB, job.job.id),
            await jobs.stored(BOB, job.job.id),
            await jobs.detail(BOB, job.job.id),
            await jobs.remove(BOB, job.job.id, check=lambda _: None),
            await queue.report(BOB, other.job.id, lambda _: pytest.fail("shown"), seconds=9),
            await queue.cancel(BOB, other.job.id, lambda _: pytest.fail("shown")),
        ]
        assert seen == [None] * len(seen)
        assert not await datasets.remove(BOB, dataset.id)
        assert await jobs.artifacts(BOB, job.job.id) == []
        assert await jobs.attempts(BOB, job.job.id) == []
        assert await jobs.last_completed(BOB) == []
        assert await jobs.active(BOB) == 0
        assert await jobs.per_day(BOB, since=0) == {}
        pages: list[Any] = [
            await datasets.page(BOB, DatasetQuery()),
            await configs.page(BOB, LoraConfigQuery()),
            await jobs.page(BOB, JobQuery()),
        ]
        assert [(page.items, page.total) for page in pages] == [((), 0)] * 3
    async with store.read() as transaction:
        assert await transaction.datasets.get(ANN, dataset.id) == dataset
        assert await transaction.lora_configs.get(ANN, config.id) == config
        assert await transaction.jobs.active(ANN) == 1
    await check_counts(store)


@pytest.mark.parametrize("sort_by", ["createdAt", "updatedAt"])
async def test_pages_are_sorted_then_by_id_in_the_same_direction(store: Store, sort_by: Any) -> None:
    async with store.write() as transaction:  # one transaction: many rows of one millisecond
        draft = DatasetDraft.parse({"kind": "lora-training", "path": "data/x"})
        made = [await transaction.datasets.add(ANN, draft, status="ready", report=None) for _ in range(25)]
        for dataset in made[::3]:
            await transaction.datasets.edit(ANN, dataset.id, lambda _: {"status": "failed"})

    async with store.read() as transaction:
        for order in ("asc", "desc"):
            found: list[Any] = []
            for skip in range(0, 28, 7):
                query = DatasetQuery(take=7, skip=skip, sort_by=sort_by, sort_order=order)
                page = await transaction.datasets.page(ANN, query)
                assert (page.total, page.take, page.skip) == (25, 7, skip)
                found += page.items
            field = "created_at" if sort_by == "createdAt" else "updated_at"
            expected = sorted(found, key=lambda item: (getattr(item, field), item.id), reverse=order == "desc")
            assert found == expected
            assert len({item.id for item in found}) == 25
        past = await transaction.datasets.page(ANN, DatasetQuery(skip=2**63 - 1))
        assert (past.items, past.total) == ((), 25)


async def test_names_are_sorted_by_code_point_on_every_database(store: Store) -> None:
    names = ["b", "A", "a", "Z", "é", "_", "10", "9", "日本", "a b", "a-b", "😀"]
    for name in names:
        await add_config(store, name=name)
    async with store.read() as transaction:
        page = await transaction.lora_configs.page(ANN, LoraConfigQuery(sort_by="name", sort_order="asc"))
    assert [item.name for item in page.items] == sorted(names)


async def test_filters_and_totals_agree(store: Store) -> None:
    await add_dataset(store, status="pending")
    await add_dataset(store, status="failed", kind="fine-tuning")
    await add_dataset(store, status="pending", kind="fine-tuning")
    await add_config(store, name="a", modelName="sd15")
    await add_config(store, name="b", modelName="sdxl", isDefault=True)
    made = [await add_job(store, output_dir=str(index)) for index in range(5)]
    await finish(store, await claimed(store))
    await finish(store, await claimed(store), "failed")
    await cancel(store, made[4].job.id)
    await claimed(store)
    async with store.read() as transaction:
        for status, count in (
            (None, 5),
            ("pending", 1),
            ("running", 1),
            ("completed", 1),
            ("failed", 2),
            ("cancelled", 1),
        ):
            page = await transaction.jobs.page(ANN, JobQuery.parse({"status": status, "type": "lora-training"}))
            assert (len(page.items), page.total) == (count, count)
            assert (await transaction.jobs.page(ANN, JobQuery.parse({"status": status, "type": "x"}))).total == 0
        for wanted, count in (({}, 3), ({"status": "pending"}, 2), ({"kind": "fine-tuning"}, 2)):
            found = await transaction.datasets.page(ANN, DatasetQuery.parse(wanted))
            assert (len(found.items), found.total) == (count, count)
        both = await transaction.datasets.page(ANN, DatasetQuery.parse({"status": "pending", "kind": "fine-tuning"}))
        assert (len(both.items), both.total) == (1, 1)
        for query, names in (({"isDefault": False}, ["a"]), ({"modelName": "sdxl"}, ["b"]), ({}, ["b", "a"])):
            configs = await transaction.lora_configs.page(ANN, LoraConfigQuery.parse(query))
            assert ([item.name for item in configs.items], configs.total) == (names, len(names))
    await check_counts(store)


async def test_a_total_counts_what_its_own_transaction_did(store: Store) -> None:
    await add_job(store)
    async with store.write() as transaction:
        await transaction.jobs.add(ANN, new_job())
        assert await transaction.jobs.active(ANN) == 2
        assert (await transaction.jobs.page(ANN, JobQuery())).total == 2
        assert await transaction.jobs.active(BOB) == 0


async def test_a_reading_transaction_sees_one_moment(store: Store) -> None:
    await add_config(store, name="first")
    async with store.read() as transaction:
        before = await transaction.lora_configs.page(ANN, LoraConfigQuery())
        await add_config(store, name="second")
        assert await transaction.lora_configs.page(ANN, LoraConfigQuery()) == before
    async with store.read() as transaction:
        assert (await transaction.lora_configs.page(ANN, LoraConfigQuery())).total == 2


DOCUMENTS: list[dict[str, Any]] = [
    {},
    {"z": 1, "a": 2, "M": {"y": [], "x": {}}},
    {"float": 1.0, "int": 1, "small": 1e-300, "big": 2**200, "negative": -0.0, "exact": 0.1},
    {"text": "\0 nul", "quote": "\"'\\", "unicode": "日本 é e\u0301 😀", "": "empty key", "\0": "nul key"},
    {"null": None, "true": True, "list": [1, 1.0, None, [], {}]},
]


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {"end": 1.0}
    for _ in range(levels):
        document = {"a": [document]}
    return document


@pytest.mark.parametrize("document", [*DOCUMENTS, nested(100)])
async def test_documents_come_back_exactly(store: Store, document: dict[str, Any]) -> None:
    dataset = await add_dataset(store, meta=document)
    job = await add_job(store, payload=document, plan=document)
    await report(store, job.job.id, status="running", result=document)
    async with store.write() as transaction:
        await transaction.events.append(job.job.id, ("note", document))
    async with store.read() as transaction:
        found = await transaction.datasets.get(ANN, dataset.id)
    again = await stored(store, job.job.id)
    assert found is not None
    last = (await events_of(store, job.job.id))[-1][2]
    for back in (found.meta, again.job.payload, again.plan, again.job.result, last):
        assert repr(back) == repr(document)  # repr tells 1.0 from 1, True from 1, and shows the order


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_document_comes_back(databases: Databases, kind: Any) -> None:
    url = databases.new(kind)
    with asyncio.Runner() as runner:
        store = Store(url)

        @settings(max_examples=50, deadline=None)
        @given(document=st.dictionaries(st.text(), JSON, max_size=5))
        def check(document: dict[str, Any]) -> None:
            async def there_and_back() -> Any:
                made = await add_dataset(store, meta=document)
                async with store.read() as transaction:
                    found = await transaction.datasets.get(ANN, made.id)
                assert found is not None
                return found.meta

            assert repr(runner.run(there_and_back())) == repr(document)

        try:
            check()
        finally:
            runner.run(store.database.close())
            databases.give_back(url)


def test_ids_are_sorted_as_they_were_made() -> None:
    ids = []
    for _ in range(2000):
        ids.append(new_id())
        time.sleep(0.000_001)
    assert len(set(ids)) == 2000
    assert sum(before > after for before, after in pairwise(ids)) == 0
    assert all(uuid.UUID(id).version == 7 for id in ids)
