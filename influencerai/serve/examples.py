"""Examples of the API's document: a request and an answer per operation, the same story all the way through."""

from __future__ import annotations

from typing import Any

from influencerai.errors import (
    AuthenticationError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    StoreError,
    TooManyError,
    ValidationError,
)
from influencerai.serve.errors import UNEXPECTED, error_body, plain_body
from influencerai.serve.example_objects import (
    ABSENT_MODEL,
    ARTIFACT,
    ATTEMPT,
    CANCELLED,
    COMPLETED,
    CONFIG,
    CONFIG_CHANGE,
    CONFIG_DRAFT,
    CONFIG_ID,
    DATASET,
    DATASET_DRAFT,
    DATASET_ID,
    DELETED,
    EVENT,
    IMAGE,
    JOB_CHANGE,
    JOB_DRAFT,
    JOB_ID,
    LORA,
    METRIC,
    MODEL,
    NODE,
    PENDING,
    PRESET,
    REPORT,
    RUNNING,
    SPANS,
    USAGE,
)


def _page(item: Any) -> dict[str, Any]:
    return {"data": [item], "total": 1, "take": 20, "skip": 0}


def _warned(item: dict[str, Any], *warnings: str) -> dict[str, Any]:
    return {**item, "warnings": list(warnings)}


REQUESTS: dict[str, Any] = {
    "create_dataset": DATASET_DRAFT,
    "update_dataset": {"meta": {"imageCount": 26, "triggerWord": "ohwx"}},
    "update_dataset_status": {"status": "ready"},
    "write_caption": {"caption": "ohwx woman, smiling, red dress"},
    "create_lora_config": CONFIG_DRAFT,
    "update_lora_config": CONFIG_CHANGE,
    "create_job": JOB_DRAFT,
    "update_job": JOB_CHANGE,
    "set_quotas": {"storedGib": 200, "gpuHoursPerMonth": None, "activeJobs": "default"},
}
"""By operation, the body of a request."""
ANSWERS: dict[str, Any] = {
    "create_dataset": _warned(DATASET),
    "list_datasets": [DATASET],
    "get_dataset": DATASET,
    "update_dataset": _warned({**DATASET, "meta": {"imageCount": 26, "triggerWord": "ohwx"}}),
    "update_dataset_status": _warned(
        {**DATASET, "meta": {**DATASET_DRAFT["meta"], "lastUpdatedBy": "user@example.com"}}
    ),
    "get_dataset_report": REPORT,
    "delete_dataset": DELETED,
    "upload_images": {"added": ["01.png"], "replaced": [], "unchanged": [], "captions": 0, "status": "ready"},
    "list_images": _page(IMAGE),
    "write_caption": IMAGE,
    "create_lora_config": _warned(CONFIG),
    "list_lora_configs": _page(CONFIG),
    "get_lora_config": CONFIG,
    "update_lora_config": _warned({**CONFIG, **CONFIG_CHANGE}),
    "delete_lora_config": {
        "success": True,
        "warnings": ["Deleted the default LoRA configuration. Consider setting a new default."],
    },
    "list_models": {"data": [MODEL, ABSENT_MODEL]},
    "list_presets": {"data": [PRESET]},
    "create_job": _warned(PENDING),
    "list_jobs": _page(COMPLETED),
    "get_job_series": {"window": "week", "data": SPANS},
    "get_job": {**COMPLETED, "training": None, "attempts": [ATTEMPT]},
    "update_job": _warned(RUNNING),
    "cancel_job": CANCELLED,
    "retry_job": _warned({**PENDING, "retryOf": JOB_ID}),
    "delete_job": DELETED,
    "get_job_events": {"data": [EVENT], "lastSeq": 2},
    "get_job_metrics": {"data": [METRIC]},
    "list_job_artifacts": {"data": [ARTIFACT]},
    "get_cluster": {"nodes": [NODE], "workers": 0},
    "get_usage": USAGE,
    "list_tenants": {"data": [USAGE], "cacheBytes": 2147483648},
    "get_tenant": USAGE,
    "set_quotas": _warned(USAGE),
    "list_all_jobs": _page(COMPLETED),
    "get_health": {"status": "ok"},
    "get_readiness": {
        "status": "ready",
        "checks": {"database": {"status": "ok", "latencyMs": 1.5, "detail": "SQLite"}},
    },
}
"""By operation, the JSON that it answers when all is well."""
ERRORS: dict[str, Any] = {
    "400": error_body(
        ValidationError(
            field_errors={"learningRate": ["Input should be greater than or equal to 0.000001"]},
        )
    ),
    "401": error_body(AuthenticationError("The header x-tenant-id is missing")),
    "403": error_body(
        PermissionDeniedError(
            "The credential's scope 'read' does not allow changing what the tenant owns: that needs the scope 'full'.",
            remedy="Send a credential with that scope; the operator makes one with `influencerai keys create`.",
        )
    ),
    "405": plain_body(405, "This route has no such method"),
    "409": error_body(
        ConflictError(
            "LoRA config with name 'My Influencer SDXL Balanced' already exists",
            existing_id=CONFIG_ID,
        )
    ),
    "413": plain_body(413, "The body is too large"),
    "416": plain_body(416, "The range is not in the file"),
    "429": error_body(TooManyError("Too many requests in this minute", retry_after=30)),
    "500": plain_body(500, UNEXPECTED),
    "503": error_body(StoreError("The database does not answer")),
}
"""By status, an error's body."""
MISSING: dict[str, Any] = {
    "Operation": plain_body(404, "There is no such route"),
    "Datasets": error_body(NotFoundError.of("Dataset", DATASET_ID)),
    "LoRA configs": error_body(NotFoundError.of("LoRA config", CONFIG_ID)),
    "Jobs": error_body(NotFoundError.of("Job", JOB_ID)),
}
"""By tag, the body of 404."""
PATH_PARAMETERS: dict[tuple[str, str], tuple[str, str]] = {
    ("Datasets", "id"): ("The dataset's id.", DATASET_ID),
    ("Datasets", "image"): ("The image's path in the dataset's folder.", "01.png"),
    ("LoRA configs", "id"): ("The configuration's id.", CONFIG_ID),
    ("Jobs", "id"): ("The job's id.", JOB_ID),
    ("Jobs", "name"): ("The file's name.", LORA),
    ("Operation", "tenant"): ("The tenant's id.", "tenant_demo"),
}
"""By tag and name, what a path's parameter means, and an example."""
