"""Requests that nobody should send: every one is refused in the contract's shape, and leaves nothing behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from influencerai.settings import Settings
from tests.serve.running import ANN, JSON, UNKNOWN_ID, Api, checked_error, field_errors, made, picture, routes, running

pytestmark = pytest.mark.anyio

GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/datasets"): {"kind": "lora-training", "path": "data/x"},
    ("PATCH", "/datasets/{id}"): {"meta": {}},
    ("PATCH", "/datasets/{id}/status"): {"status": "ready"},
    ("PUT", "/datasets/{id}/images/{image:path}/caption"): {"caption": "me"},
    ("POST", "/lora-configs"): {"name": "New", "modelName": "sd15"},
    ("PATCH", "/lora-configs/{id}"): {"epochs": 3},
    ("POST", "/jobs"): {"type": "lora-training", "payload": {"datasetId": UNKNOWN_ID, "loraConfigId": UNKNOWN_ID}},
    ("PATCH", "/jobs/{id}"): {"status": "running"},
    ("PATCH", "/admin/tenants/{tenant}/quotas"): {"activeJobs": 3},
}
"""A body of each route that takes one."""
NOT_JSON = [
    b"",
    b" ",
    b"{",
    b"{'a': 1}",
    b'{"a": 1,}',
    b"nope",
    b"a=b&c=d",
    b"\xff\xfe\x00",
    b'{"a": "\xff"}',
    b'{"meta": NaN}',
    b'{"meta": {"a": Infinity}}',
    b'{"meta": {"a": -Infinity}}',
    b'{"meta": {"a": 1e400}}',
    b'{"result": {"a": -1e400}}',
    b'{"meta": {"a": ' + b"9" * 5000 + b"}}",
    b'{"meta": {"a": "\\ud800"}}',
    b'{"\\udfff": 1}',
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b'{"meta": ' + b"[" * 80 + b"]" * 80 + b"}",
]
NO_OBJECT = [b"null", b"true", b"1", b'"text"', b"[]", b"[{}]"]


async def ids(api: Api) -> dict[str, str]:
    """A failed job, its dataset with pictures and its configuration, by the noun in the routes' paths."""
    api.pictures()
    job = await api.failed_job()
    return {"datasets": job["payload"]["datasetId"], "lora-configs": job["payload"]["loraConfigId"], "jobs": job["id"]}


def filled_in(path: str, ids: dict[str, str]) -> str:
    id = ids.get(path.split("/")[1], "")
    return path.replace("{id}", id).replace("{image:path}", "0.png").replace("{name}", "file").replace("{tenant}", ANN)


async def states(api: Api) -> list[bytes]:
    return [(await api.get(path)).content for path in ("/datasets", "/lora-configs", "/jobs")]


async def test_every_route_with_a_body_is_tried(api: Api) -> None:
    bodyless = {("POST", "/jobs/{id}/cancel"), ("POST", "/jobs/{id}/retry"), ("POST", "/datasets/{id}/images")}
    with_body = {(method, path) for method, path in routes(api.app) if method in ("POST", "PUT", "PATCH")}
    assert with_body - bodyless == GOOD.keys()


@pytest.mark.slow
async def test_bodies_that_are_no_usable_json(api: Api) -> None:
    found = await ids(api)
    before, shown = await api.rows(), await states(api)
    for method, path in GOOD:
        for body in NOT_JSON + NO_OBJECT:
            for headers in (JSON, {**JSON, "idempotency-key": "again"}):
                checked_error(await api.send(method, filled_in(path, found), content=body, headers=headers), 400)
    assert await api.rows() == before
    assert await states(api) == shown


async def test_bodies_of_other_types(api: Api) -> None:
    found = await ids(api)
    before, shown = await api.rows(), await states(api)
    for (method, path), body in GOOD.items():
        text = json.dumps(body).encode()
        for kind in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            headers = {} if kind is None else {"content-type": kind}
            response = await api.send(method, filled_in(path, found), content=text, headers=headers)
            assert any("application/json" in text for text in field_errors(response)["_"])
    assert await api.rows() == before
    assert await states(api) == shown


@pytest.mark.slow
async def test_fields_of_wrong_types(api: Api) -> None:
    found = await ids(api)
    before, shown = await api.rows(), await states(api)
    wrong: tuple[Any, ...] = (True, 1, 1.5, -1, 10**30, "x" * 5000, [], [1], {"a": 1}, "", "a\0b")
    free = {
        ("/datasets", "meta"), ("/datasets/{id}", "meta"), ("/lora-configs", "meta"), ("/jobs/{id}", "result"),
        ("/datasets/{id}/images/{image:path}/caption", "caption"),
    }  # fmt: skip
    for (method, path), body in GOOD.items():
        for name in body:
            for value in wrong:
                is_fit = isinstance(value, dict) if (path, name) in free else False
                if is_fit or (name == "caption" and value in ("", "x" * 5000)):
                    continue
                if (name, value) in (("epochs", 1), ("activeJobs", 1), ("activeJobs", 1.5)) or (
                    name in ("name", "modelName") and value == "x"
                ):
                    continue
                response = await api.send(method, filled_in(path, found), json={**body, name: value})
                errors = checked_error(response, 400)["errors"]["fieldErrors"]
                assert any(key.split(".")[0] == name for key in errors), (path, name, value, errors)
    assert await api.rows() == before
    assert await states(api) == shown


RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "epochs": ([0, 1001, "10", 10.0, True, None], [1, 1000]),
    "learningRate": ([0, 9e-7, 1.0001, "0.1", True], [1e-6, 1.0, 1]),
    "batchSize": ([0, 65], [1, 64]),
    "resolution": ([127, 2049], [128, 2048]),
    "networkDim": ([0, 513], [1, 512]),
    "networkAlpha": ([0.5, 512.5], [1, 512, 0.5e1]),
    "name": (["", "   ", "x" * 101, "a\0b", 7], ["x", " " * 200 + "y" * 100 + " " * 200]),
    "description": (["x" * 501], ["", "x" * 500, None]),
    "modelName": (["", " ", "x" * 256, "a\0b", "a\nb", "a\u202eb", "a\u2028b", "a\x1b[31m"], ["x" * 255, "モデル"]),
    "outputPath": (
        ["/etc", "../x", "data/../../x", "a\\b", "a\0b", "C:/x", "~/x", "a%2e", ".influencerai/x", "x" * 256],
        ["a/b/", "./a", None],
    ),
    "isDefault": (["true", 1, "yes"], [True, False]),
    "meta": (
        [[], "x", {"optimizer": 7}, {"seed": -1.5}, {"triggerword": "x"}],
        [{}, {"free": [1, None, "x"]}],
    ),
}
"""Bad and good values of each field; null is bad in a change alone."""


async def test_ranges_of_a_configuration(api: Api) -> None:
    for field, (_, good) in RANGES.items():
        for number, value in enumerate(good):
            await api.config(**{"name": f"{field} {number}", field: value})
    before = await api.rows()
    target = (await api.get("/lora-configs?take=1")).json()["data"][0]
    for field, (bad, _) in RANGES.items():
        for value in bad:
            if value is not None:
                body = {"name": "bad", "modelName": "sd15", field: value}
                errors = field_errors(await api.post("/lora-configs", body))
                assert {name.split(".")[0] for name in errors} == {field}, (field, value)
            errors = field_errors(await api.patch(f"/lora-configs/{target['id']}", {field: value}))
            assert {name.split(".")[0] for name in errors} == {field}, (field, value)
    assert await api.rows() == before
    assert (await api.get(f"/lora-configs/{target['id']}")).json() == target


async def test_messages_name_the_bound(api: Api) -> None:
    body = {"name": "x", "modelName": "y", "epochs": 1001, "learningRate": 0, "batchSize": 65, "resolution": 127}
    errors = field_errors(await api.post("/lora-configs", body))
    for field, bound in {"epochs": "1000", "learningRate": "0.000001", "batchSize": "64", "resolution": "128"}.items():
        assert bound in errors[field][0]


QUERIES = [
    *[(f"take={value}", "take") for value in ("0", "101", "-1", "1.0", "ten", "", "1e1", "+5", " 5", "٣", "9" * 5000)],
    *[(f"skip={value}", "skip") for value in ("-1", "1.5", "x", "9" * 25, str(2**63))],
    ("sortBy=name%00", "sortBy"),
    ("sortBy=tenantId", "sortBy"),
    ("sortBy=created_at", "sortBy"),
    ("sortOrder=DESC", "sortOrder"),
    ("sortOrder=;drop", "sortOrder"),
    ("takee=1", "takee"),
    ("sort_ordr=asc", "sort_ordr"),
]
"""What every list refuses, and the field that it names."""
SINGLE_QUERIES = [
    ("/datasets?status=cancelled", "status"),
    ("/datasets?kind=x", "kind"),
    ("/datasets?staus=ready", "staus"),
    ("/lora-configs?isDefault=1", "isDefault"),
    ("/lora-configs?isDefault=True", "isDefault"),
    ("/lora-configs?modelName=%00", "modelName"),
    ("/lora-configs?isdefault=true", "isdefault"),
    ("/jobs?status=done", "status"),
    ("/jobs?type=a%00b", "type"),
    ("/jobs/series?window=year", "window"),
    ("/jobs/series?buckets=0", "buckets"),
    ("/jobs/series?buckets=367", "buckets"),
    ("/jobs/series?bucket=7", "bucket"),
    ("/jobs/{id}/events?after=-1", "after"),
    ("/jobs/{id}/events?take=1001", "take"),
    ("/jobs/{id}/metrics?points=1", "points"),
    ("/jobs/{id}/metrics?point=9", "point"),
    ("/datasets/{id}/report?refresh=1", "refresh"),
    ("/datasets/{id}/report?refesh=true", "refesh"),
    ("/datasets/{id}/images?sortOrder=up", "sortOrder"),
]


async def test_queries(any_api: Api) -> None:
    found = await ids(any_api)
    for path in ("/datasets", "/lora-configs", "/jobs"):
        for query, field in QUERIES:
            assert field in field_errors(await any_api.get(f"{path}?{query}")), (path, query)
    for path, field in SINGLE_QUERIES:
        assert field in field_errors(await any_api.get(filled_in(path, found))), path


async def test_a_misspelt_dry_run_starts_nothing(api: Api) -> None:
    job = await api.failed_job()
    before = await api.rows()
    for query in ("dryrun=true", "dry=true&dryRuns=true", "dryRun=1", "dryRun=yes", "dryRun="):
        field_errors(await api.post(f"/jobs?{query}", {"type": "lora-training", "payload": job["payload"]}))
    assert await api.rows() == before


@pytest.mark.slow
async def test_unknown_ids_of_every_kind(any_api: Api) -> None:
    words = "x %00 a%00b %2e%2e %2e%2e%2f%2e%2e%2fetc ü💥 %ff %ed%a0%80 a%20b %25 * null -1 1'OR'1'='1"
    strange = [*words.split(), "x" * 10_000]
    for method, path in sorted(routes(any_api.app)):
        if "{id}" not in path:
            continue
        options: dict[str, Any] = {"json": GOOD[method, path]} if (method, path) in GOOD else {}
        if path.endswith("/images") and method == "POST":
            options = {"files": {"files": ("a.png", picture())}}
        for id in strange:
            target = path.replace("{id}", id).replace("{image:path}", "0.png").replace("{name}", "x")
            response = await any_api.send(method, target, **options)
            assert method == "HEAD" or checked_error(response, 404, 405), target
            assert response.status_code in (404, 405)


async def test_methods_and_routes_that_are_not_there(api: Api) -> None:
    for method in ("PUT", "TRACE", "CONNECT", "BREW", "PROPFIND"):
        for path in ("/datasets", "/lora-configs/x", "/jobs", "/jobs/series"):
            response = await api.send(method, path)
            checked_error(response, 405)
            assert response.headers["allow"]
        checked_error(await api.send(method, "/nowhere"), 404)
    shown = (await api.get("/metrics")).text
    assert 'method="PUT"' in shown
    assert 'method="BREW"' not in shown
    for path in ("/", "/datasets/", "/lora-configs//", "//datasets", "/jobs/x/y/z", "/api%2f", "/%2e%2e/etc"):
        checked_error(await api.get(path), 404)


async def test_bodies_that_are_too_large(tmp_path: Any, sqlite_url: str) -> None:
    settings = Settings(root=tmp_path, database_url=sqlite_url, max_body_kib=4, max_upload_mib=1)
    async with running(settings) as api:
        dataset = await api.dataset()
        before = await api.rows()
        body = json.dumps({**GOOD["POST", "/datasets"], "meta": {"x": "x" * 5000}}).encode()

        async def chunks() -> Any:
            for start in range(0, len(body), 100):
                yield body[start : start + 100]

        for content in (body, chunks()):
            checked_error(await api.send("POST", "/datasets", content=content, headers=JSON), 413)
        for length in ("9" * 30, str(2**62)):
            headers = {**JSON, "content-length": length}
            checked_error(await api.send("POST", "/datasets", content=b"{}", headers=headers), 413)
        large = {"files": ("a.png", b"\x89PNG" + b"x" * 10 * 2**20)}
        checked_error(await api.send("POST", f"/datasets/{dataset['id']}/images", files=large), 413)
        caption = f"/datasets/{dataset['id']}/images/a.png/caption"
        checked_error(await api.send("PUT", caption, json={"caption": "x" * 5000}), 413)
        assert await api.rows() == before
        assert not (api.root / "data").exists()
        await api.dataset()


async def test_duplicate_names_in_an_object_take_the_last(api: Api) -> None:
    body = b'{"kind": "nonsense", "path": "data/x", "kind": "lora-training"}'
    assert (await api.send("POST", "/datasets", content=body, headers=JSON)).status_code == 201


@pytest.mark.slow
async def test_numbers_beyond_64_bits_come_back_as_sent(any_api: Api) -> None:
    meta = {"big": 2**64 + 1, "negative": -(2**70), "digits": 10**3999, "float": 1.7976931348623157e308, "zero": -0.0}
    dataset = await any_api.dataset(meta=meta)
    assert (await any_api.get(f"/datasets/{dataset['id']}")).json()["meta"] == meta
    cost = {"costTok": 2**63}
    job = await any_api.failed_job()
    assert "costTok" in field_errors(await any_api.patch(f"/jobs/{job['id']}", cost))
    assert (await any_api.patch(f"/jobs/{job['id']}", {"costTok": 2**63 - 1})).json()["costTok"] == 2**63 - 1


async def test_nul_and_unicode_in_free_fields_come_back_as_sent(any_api: Api) -> None:
    meta: dict[str, Any] = {
        "nul\0key": "a\0b",
        "emoji": "💥",
        "": None,
        "list": [[], {}, None, True, 1.5],
        "quote": "\"'\\",
    }
    dataset = await any_api.dataset(meta=meta)
    assert dataset["meta"] == meta
    assert (await any_api.get("/datasets")).json()[0]["meta"] == meta
    config = await any_api.config(meta={"free\0": "\0"}, description="a\0b", name="Ünï 💥 <b>")
    assert (await any_api.get(f"/lora-configs/{config['id']}")).json()["meta"] == {"free\0": "\0"}


async def test_ids_with_nul_in_a_body(any_api: Api) -> None:
    config = await any_api.config()
    for payload in (
        {"datasetId": "a\0b"},
        {"datasetId": "x", "loraConfigId": "a\0b"},
        {"datasetId": "a\0b", "loraConfigId": config["id"]},
    ):
        body = {"type": "lora-training", "payload": payload}
        checked_error(await any_api.post("/jobs", body), 404)
        checked_error(await any_api.post("/jobs?dryRun=true", body), 404)


async def test_headers_that_cannot_be_used(api: Api) -> None:
    before = await api.rows()
    for key in ("", "x" * 256, "a\tb"):
        response = await api.post("/datasets", GOOD["POST", "/datasets"], headers={"idempotency-key": key})
        assert "Idempotency-Key" in field_errors(response)
    for tenant in ("", " ", "a b", "x" * 65, "..", ".", "a/b", "ü", "a\tb", "a\0b", "ann,bob"):
        body = checked_error(await api.send("GET", "/datasets", headers={"x-tenant-id": tenant.encode()}), 401)
        assert "x-tenant-id" in body["message"]
    assert await api.rows() == before


@pytest.mark.slow
async def test_server_fields_of_a_clone_are_ignored(api: Api) -> None:
    job = await api.failed_job()
    dataset = (await api.get(f"/datasets/{job['payload']['datasetId']}")).json()
    config = (await api.get(f"/lora-configs/{job['payload']['loraConfigId']}")).json()
    for path, thing, changes in (
        ("/datasets", dataset, {}),
        ("/lora-configs", config, {"name": "Clone"}),
        ("/jobs", job, {}),
    ):
        clone = await api.post(path, {**thing, "warnings": [], "tenantId": "bob", **changes})
        assert clone.status_code == 201, clone.text
        assert clone.json()["id"] != thing["id"]
        assert clone.json()["tenantId"] == ANN
        assert not [text for text in clone.json()["warnings"] if "nknown field" in text]
    edits: dict[str, dict[str, Any]] = {
        f"/datasets/{dataset['id']}": {"meta": {"new": 1}},
        f"/lora-configs/{config['id']}": {"epochs": 7},
    }
    for path, edit in edits.items():
        shown = (await api.get(path)).json()
        edited = (await api.patch(path, {**shown, **edit})).json()
        assert not [text for text in edited.pop("warnings") if "is not on this server" not in text]
        times = {"updatedAt": edited["updatedAt"]}
        assert edited == {**shown, **edit, **times}
    shown = (await api.get(f"/jobs/{job['id']}")).json()
    edited = await api.patch(f"/jobs/{job['id']}", {**shown, "costTok": 9})
    assert edited.json()["costTok"] == 9
    assert edited.json()["warnings"] == []


async def test_unknown_fields_are_named_and_near_misses_refused(api: Api) -> None:
    found = await ids(api)
    for (method, path), body in GOOD.items():
        if path.endswith("/caption"):
            continue
        body = {
            **body,
            **(
                {"payload": {"datasetId": found["datasets"], "loraConfigId": found["lora-configs"]}}
                if path == "/jobs"
                else {}
            ),
        }
        if path == "/jobs/{id}":
            body = {"costTok": 1}
        response = await api.send(method, filled_in(path, found), json={**body, "zebra": 1})
        assert response.status_code in (200, 201), response.text
        assert "Unknown field 'zebra' is ignored." in response.json()["warnings"]
    for path, near, meant in (
        ("/datasets", "metaa", "meta"),
        ("/lora-configs", "learningrate", "learningRate"),
        ("/lora-configs", "batch_sizes", "batchSize"),
        ("/jobs", "payloads", "payload"),
        ("/lora-configs", "epcohs", "epochs"),
        ("/lora-configs", "meat", "meta"),
        ("/datasets", "paht", "path"),
    ):
        body = {**GOOD["POST", path], near: 1}
        assert f"did you mean '{meant}'?" in field_errors(await api.post(path, body))[near][0]
    for near, meant in (("statsu", "status"), ("resutl", "result")):
        response = await api.patch(f"/jobs/{found['jobs']}", {near: "failed"})
        assert f"did you mean '{meant}'?" in field_errors(response)[near][0]
    body = {"type": "lora-training", "payload": {"datasetid": found["datasets"]}}
    assert "did you mean 'datasetId'?" in field_errors(await api.post("/jobs", body))["payload.datasetid"][0]


async def test_a_field_in_the_wrong_place_is_refused_with_the_right_one(api: Api) -> None:
    config = {**GOOD["POST", "/lora-configs"], "optimizer": "Prodigy"}
    belongs = ["The option 'optimizer' belongs in meta: meta.optimizer"]
    assert field_errors(await api.post("/lora-configs", config))["optimizer"] == belongs
    made_before = await api.config()
    changed = await api.patch(f"/lora-configs/{made_before['id']}", {"optimizer": "Prodigy"})
    assert field_errors(changed)["optimizer"] == belongs
    job = {"type": "lora-training", "payload": {}, "datasetId": "x"}
    assert "payload.datasetId" in field_errors(await api.post("/jobs", job))["datasetId"][0]


async def test_nulls_count_as_absent(api: Api) -> None:
    names = ("description", "epochs", "learningRate", "networkAlpha", "meta", "isDefault", "outputPath")
    config = made(await api.post("/lora-configs", {"name": "Portrait", "modelName": "sd15", **dict.fromkeys(names)}))
    assert (config["epochs"], config["learningRate"], config["networkAlpha"], config["meta"]) == (10, 1e-4, 16, {})
    dataset = await api.dataset(meta=None)
    assert dataset["meta"] == {}
    await api.config(name="Default", isDefault=True)
    job = await api.post(
        "/jobs",
        {"type": "lora-training", "payload": {"datasetId": dataset["id"], "loraConfigId": None, "priority": None}},
    )
    assert job.status_code == 201
    assert (await api.dataset(kind=None, path="x"))["kind"] == "lora-training"
    field_errors(await api.post("/datasets", {"kind": "lora-training", "path": None}))
