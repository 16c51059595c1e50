"""Answers of servers that are newer or older than the client."""

from __future__ import annotations

from typing import Any

import pytest
from httpx2 import Request, Response

from influencerai.client.answers import error_of, noun_of
from influencerai.domain.job import JobDetail
from influencerai.errors import (
    ConflictError,
    DatasetError,
    InfluencerAIError,
    NotFoundError,
    RefusedError,
    StoreError,
    TooManyError,
    UnreachableError,
    ValidationError,
)

JOB: dict[str, Any] = {
    "id": "a",
    "tenantId": "me",
    "type": "lora-training",
    "status": "running",
    "payload": {},
    "createdAt": "2025-01-15T10:30:00.000Z",
    "updatedAt": "2025-01-15T10:30:00.000Z",
    "attempts": [{"number": 1, "node": "n", "startedAt": "2025-01-15T10:30:00.000Z"}],
}


def answered(status: int, body: Any = None, **headers: str) -> Response:
    return Response(status, json=body, headers=headers, request=Request("GET", "http://server/jobs"))


def test_a_newer_servers_fields_are_left_out_whatever_they_look_like() -> None:
    [attempt] = JOB["attempts"]
    newer = {**JOB, "tenantIds": [], "brandNew": 1, "attempts": [{**attempt, "nodes": 2, "startedAts": 0}]}
    assert noun_of(JobDetail, newer, answered(200)) == JobDetail.model_validate(JOB)


@pytest.mark.parametrize("document", [{**JOB, "status": "asleep"}, [], None, {"id": "a"}])
def test_what_is_no_job_says_where_it_is_not(document: Any) -> None:
    with pytest.raises(InfluencerAIError, match="GET http://server/jobs is not understood: JobDetail") as caught:
        noun_of(JobDetail, document, answered(200))
    assert "same version" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"message": "no", "errors": {"fieldErrors": {"a": ["b"]}}}, ValidationError),
        (400, {"message": "no"}, RefusedError),
        (400, {"message": "no", "code": "dataset"}, DatasetError),
        (404, {"message": "no", "errors": {"fieldErrors": {"a": ["b"]}}}, NotFoundError),
        (409, {"message": "no", "id": "x"}, ConflictError),
        (429, {"message": "no"}, TooManyError),
        (500, {"message": "no", "code": "nobody knows"}, InfluencerAIError),
        (502, None, UnreachableError),
        (503, {"message": "no"}, StoreError),
        (418, ["tea"], InfluencerAIError),
        (400, {"message": 5, "errors": [], "remedy": 7}, RefusedError),
    ],
)
def test_errors_are_the_classes_that_the_library_raises(status: int, body: Any, kind: type[Exception]) -> None:
    error = error_of(answered(status, body))
    assert type(error) is kind
    assert error.status_code == status
    assert error.message
    has_fields = isinstance(body, dict) and isinstance(body.get("errors"), dict)
    assert error.errors == ({"a": ["b"]} if has_fields else {})
    if isinstance(error, ConflictError):
        assert error.existing_id == "x"


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("0.2", 1), ("soon", 5), ("inf", 5)])
def test_when_to_come_back(header: str, seconds: int) -> None:
    error = error_of(answered(429, {"message": "no"}, **{"retry-after": header}))
    assert isinstance(error, TooManyError)
    assert error.retry_after == seconds
