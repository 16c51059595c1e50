"""Examples of the API's document: a request and an answer per operation, the same story all the way through."""

from __future__ import annotations

from typing import Any

from influencerai.domain.presets import PRESETS
from influencerai.domain.problem import CANCELLATION
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

DATASET = "0198f3a1-5c00-7000-8000-00000000000a"
CONFIG = "0198f3a1-5c00-7000-8000-00000000000b"
JOB = "0198f3a1-5c00-7000-8000-00000000000c"
_TENANT = "tenant_demo"
_LORA = "my-influencer-v1-final.safetensors"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

_DATASET_DRAFT: dict[str, Any] = {
    "kind": "lora-training",
    "path": "data/datasets/my-influencer",
    "meta": {"imageCount": 25, "resolution": "1024x1024", "triggerWord": "ohwx"},
}
_DATASET = {
    "id": DATASET,
    "tenantId": _TENANT,
    **_DATASET_DRAFT,
    "status": "ready",
    "createdAt": "2025-01-15T10:30:00.000Z",
    "updatedAt": "2025-01-15T10:30:00.000Z",
}
_CONFIG_DRAFT = {
    "name": "My Influencer SDXL Balanced",
    "description": "Balanced configuration for SDXL training with 20 epochs",
    "modelName": "stabilityai/stable-diffusion-xl-base-1.0",
    "epochs": 20,
    "learningRate": 0.0001,
    "batchSize": 2,
    "resolution": 1024,
    "networkDim": 16,
    "networkAlpha": 8,
    "outputPath": "data/loras/my-influencer-v1",
    "meta": {"optimizer": "AdamW8bit", "lrScheduler": "cosine", "minSnrGamma": 5},
    "isDefault": False,
}
_CONFIG_CHANGE = {"epochs": 30, "learningRate": 0.00005, "isDefault": True}
_CONFIG = {
    "id": CONFIG,
    "tenantId": _TENANT,
    **_CONFIG_DRAFT,
    "createdAt": "2025-01-15T11:00:00.000Z",
    "updatedAt": "2025-01-15T11:00:00.000Z",
}
_NODE = {
    "id": "8538000ccd7e49a40969d92ad15d3d8e8afe451dc356b8dfeaf72646",
    "name": "gpu-box-1",
    "state": "ready",
    "problem": None,
    "cpus": 16.0,
    "cpusHeld": 2.0,
    "memoryGb": 64.0,
    "memoryHeldGb": 8.1,
    "devices": [{"name": "NVIDIA GeForce RTX 4090", "memoryGb": 24.0, "held": 1.0}],
    "jobs": [{"id": JOB, "attempt": 1, "startedAt": "2025-01-15T12:00:05.000Z", "devices": 1.0}],
    "otherJobs": 0,
}
_MODEL = {
    "name": "stabilityai/stable-diffusion-xl-base-1.0",
    "available": True,
    "alias": False,
    "hubId": "stabilityai/stable-diffusion-xl-base-1.0",
    "family": "sdxl",
    "layout": "diffusers",
    "size": 6_938_040_682,
    "path": "models/stabilityai/stable-diffusion-xl-base-1.0",
    "problem": None,
    "remedy": None,
}
_ABSENT_MODEL = {
    "name": "sd15",
    "available": False,
    "alias": True,
    "hubId": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "problem": "There is no base model 'sd15'.",
    "remedy": "Copy the model to models/stable-diffusion-v1-5/stable-diffusion-v1-5.",
}
_PRESET = PRESETS["balanced"].to_wire()
_JOB_DRAFT = {"type": "lora-training", "payload": {"datasetId": DATASET, "loraConfigId": CONFIG}}
_JOB_CHANGE = {
    "status": "running",
    "result": {"progress": {"currentEpoch": 5, "totalEpochs": 20, "loss": 0.0456}},
}
_PENDING = {
    "id": JOB,
    "tenantId": _TENANT,
    **_JOB_DRAFT,
    "status": "pending",
    "result": None,
    "costTok": None,
    "startedAt": None,
    "finishedAt": None,
    "createdAt": "2025-01-15T11:30:00.000Z",
    "updatedAt": "2025-01-15T11:30:00.000Z",
    "metadata": {"orderId": "A-17"},
    "loraConfigName": "My Influencer SDXL Balanced",
    "modelName": "stabilityai/stable-diffusion-xl-base-1.0",
    "datasetPath": "data/datasets/my-influencer",
    "stage": None,
    "waiting": None,
    "cancelRequested": False,
    "retryOf": None,
}
_RUNNING = {
    **_PENDING,
    **_JOB_CHANGE,
    "stage": "training",
    "startedAt": "2025-01-15T11:31:00.000Z",
    "updatedAt": "2025-01-15T11:45:00.000Z",
}
_COMPLETED = {
    **_RUNNING,
    "status": "completed",
    "result": {
        "loraPath": f"data/loras/my-influencer-v1/{_LORA}",
        "checkpoints": [
            "my-influencer-v1-epoch-5.safetensors",
            "my-influencer-v1-epoch-10.safetensors",
            "my-influencer-v1-epoch-15.safetensors",
            _LORA,
        ],
        "finalLoss": 0.0123,
        "trainingTimeMinutes": 95,
    },
    "stage": None,
    "finishedAt": "2025-01-15T13:06:00.000Z",
    "updatedAt": "2025-01-15T13:06:00.000Z",
}
_CANCELLED = {
    **_RUNNING,
    "status": "failed",
    "result": {
        **CANCELLATION.to_wire(),
        "cancelled": True,
        "epoch": 3,
        "partialCheckpoints": [
            "my-influencer-v1-epoch-1.safetensors",
            "my-influencer-v1-epoch-2.safetensors",
        ],
    },
    "stage": None,
    "finishedAt": "2025-01-15T11:45:00.000Z",
    "cancelRequested": True,
}
_ATTEMPT = {
    "number": 1,
    "node": "gpu-1",
    "startedAt": "2025-01-15T11:31:00.000Z",
    "endedAt": "2025-01-15T13:06:00.000Z",
    "outcome": "completed",
    "error": None,
}
_IMAGE = {
    "path": "01.png",
    "width": 1024,
    "height": 1024,
    "caption": "ohwx woman, smiling, red dress",
    "captionSource": "txt",
    "usable": True,
    "errors": [],
    "warnings": [],
    "thumbnail": f"/datasets/{DATASET}/images/01.png/thumbnail",
}
_IMAGE_REPORT = {
    "path": "01.png",
    "sha256": _SHA256,
    "format": "PNG",
    "width": 1024,
    "height": 1024,
    "caption": "ohwx woman, smiling, red dress",
    "captionSource": "txt",
    "repeats": 1,
    "hasTrigger": True,
    "duplicateOf": None,
    "errors": [],
    "warnings": [],
}
_REPORT = {
    "folder": "",
    "status": "ready",
    "images": [_IMAGE_REPORT],
    "errors": [],
    "warnings": [],
    "notes": [],
    "imageCount": 1,
    "usableCount": 1,
    "captionedCount": 1,
    "errorCount": 0,
    "warningCount": 0,
}
_ARTIFACT = {
    "name": _LORA,
    "kind": "lora",
    "path": f"data/loras/my-influencer-v1/{_LORA}",
    "size": 85_000_000,
    "sha256": _SHA256,
    "step": 260,
    "epoch": 20,
    "createdAt": "2025-01-15T13:06:00.000Z",
    "url": f"/jobs/{JOB}/artifacts/{_LORA}",
}
_METRIC = {
    "step": 65,
    "epoch": 5,
    "loss": 0.0456,
    "learningRate": 0.000096,
    "imagesPerSecond": 1.1,
    "validationLoss": None,
}
_EVENT = {"seq": 2, "type": "progress", "data": _JOB_CHANGE["result"], "createdAt": "2025-01-15T11:45:00.000Z"}
_SPANS = [
    {"date": "2025-01-08", "completed": 12, "failed": 2, "pending": 1, "running": 3},
    {"date": "2025-01-15", "completed": 18, "failed": 1, "pending": 0, "running": 2},
]
_DELETED = {"success": True, "warnings": []}


def _page(item: Any) -> dict[str, Any]:
    return {"data": [item], "total": 1, "take": 20, "skip": 0}


def _warned(item: dict[str, Any], *warnings: str) -> dict[str, Any]:
    return {**item, "warnings": list(warnings)}


_QUOTAS = (
    ("datasets", 2, 1000, "default"),
    ("configs", 3, 1000, "default"),
    ("storedGib", 1.5, 200, "tenant"),
    ("activeJobs", 1, 5, "default"),
    ("jobsPerDay", 4, 500, "default"),
    ("uploadMib", None, 2048, "default"),
    ("gpuHoursPerMonth", 1.25, None, "default"),
)
_USAGE: dict[str, Any] = {
    "tenantId": "tenant_demo",
    "jobs": {"pending": 0, "running": 1, "completed": 11, "failed": 1, "cancelled": 0},
    "datasets": 2,
    "configs": 3,
    "deviceSeconds": 52000,
    "deviceSecondsThisMonth": 4500,
    "disk": {
        "datasets": 1000000000,
        "runs": 500000000,
        "loras": 110000000,
        "other": 612736,
        "total": 1610612736,
        "measuredAt": "2025-01-15T10:30:00.000Z",
    },
    "quotas": [{"name": name, "used": used, "limit": limit, "source": source} for name, used, limit, source in _QUOTAS],
}
REQUESTS: dict[str, Any] = {
    "create_dataset": _DATASET_DRAFT,
    "update_dataset": {"meta": {"imageCount": 26, "triggerWord": "ohwx"}},
    "update_dataset_status": {"status": "ready"},
    "write_caption": {"caption": "ohwx woman, smiling, red dress"},
    "create_lora_config": _CONFIG_DRAFT,
    "update_lora_config": _CONFIG_CHANGE,
    "create_job": _JOB_DRAFT,
    "update_job": _JOB_CHANGE,
    "set_quotas": {"storedGib": 200, "gpuHoursPerMonth": None, "activeJobs": "default"},
}
"""By operation, the body of a request."""
ANSWERS: dict[str, Any] = {
    "create_dataset": _warned(_DATASET),
    "list_datasets": [_DATASET],
    "get_dataset": _DATASET,
    "update_dataset": _warned({**_DATASET, "meta": {"imageCount": 26, "triggerWord": "ohwx"}}),
    "update_dataset_status": _warned(
        {**_DATASET, "meta": {**_DATASET_DRAFT["meta"], "lastUpdatedBy": "user@example.com"}}
    ),
    "get_dataset_report": _REPORT,
    "delete_dataset": _DELETED,
    "upload_images": {"added": ["01.png"], "replaced": [], "unchanged": [], "captions": 0, "status": "ready"},
    "list_images": _page(_IMAGE),
    "write_caption": _IMAGE,
    "create_lora_config": _warned(_CONFIG),
    "list_lora_configs": _page(_CONFIG),
    "get_lora_config": _CONFIG,
    "update_lora_config": _warned({**_CONFIG, **_CONFIG_CHANGE}),
    "delete_lora_config": {
        "success": True,
        "warnings": ["Deleted the default LoRA configuration. Consider setting a new default."],
    },
    "list_models": {"data": [_MODEL, _ABSENT_MODEL]},
    "list_presets": {"data": [_PRESET]},
    "create_job": _warned(_PENDING),
    "list_jobs": _page(_COMPLETED),
    "get_job_series": {"window": "week", "data": _SPANS},
    "get_job": {**_COMPLETED, "training": None, "attempts": [_ATTEMPT]},
    "update_job": _warned(_RUNNING),
    "cancel_job": _CANCELLED,
    "retry_job": _warned({**_PENDING, "retryOf": JOB}),
    "delete_job": _DELETED,
    "get_job_events": {"data": [_EVENT], "lastSeq": 2},
    "get_job_metrics": {"data": [_METRIC]},
    "list_job_artifacts": {"data": [_ARTIFACT]},
    "get_cluster": {"nodes": [_NODE], "workers": 0},
    "get_usage": _USAGE,
    "list_tenants": {"data": [_USAGE], "cacheBytes": 2147483648},
    "get_tenant": _USAGE,
    "set_quotas": _warned(_USAGE),
    "list_all_jobs": _page(_COMPLETED),
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
            existing_id=CONFIG,
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
    "Datasets": error_body(NotFoundError.of("Dataset", DATASET)),
    "LoRA configs": error_body(NotFoundError.of("LoRA config", CONFIG)),
    "Jobs": error_body(NotFoundError.of("Job", JOB)),
}
"""By tag, the body of 404."""
PATH_PARAMETERS: dict[tuple[str, str], tuple[str, str]] = {
    ("Datasets", "id"): ("The dataset's id.", DATASET),
    ("Datasets", "image"): ("The image's path in the dataset's folder.", "01.png"),
    ("LoRA configs", "id"): ("The configuration's id.", CONFIG),
    ("Jobs", "id"): ("The job's id.", JOB),
    ("Jobs", "name"): ("The file's name.", _LORA),
    ("Operation", "tenant"): ("The tenant's id.", "tenant_demo"),
}
"""By tag and name, what a path's parameter means, and an example."""
CALLS = {
    "create_dataset": "datasets.create",
    "list_datasets": "datasets.list",
    "get_dataset": "datasets.get",
    "update_dataset": "datasets.update",
    "update_dataset_status": "datasets.set_status",
    "get_dataset_report": "datasets.report",
    "delete_dataset": "datasets.delete",
    "upload_images": "datasets.upload",
    "list_images": "datasets.images",
    "get_thumbnail": "datasets.thumbnail",
    "write_caption": "datasets.write_caption",
    "create_lora_config": "lora_configs.create",
    "list_lora_configs": "lora_configs.list",
    "get_lora_config": "lora_configs.get",
    "update_lora_config": "lora_configs.update",
    "delete_lora_config": "lora_configs.delete",
    "list_models": "models",
    "list_presets": "presets",
    "create_job": "jobs.create",
    "list_jobs": "jobs.list",
    "get_job_series": "jobs.series",
    "get_job": "jobs.get",
    "update_job": "jobs.update",
    "cancel_job": "jobs.cancel",
    "retry_job": "jobs.retry",
    "delete_job": "jobs.delete",
    "get_job_events": "jobs.follow",
    "get_job_metrics": "jobs.metrics",
    "list_job_artifacts": "jobs.artifacts",
    "download_job_artifact": "jobs.download",
    "get_sample_thumbnail": "jobs.thumbnail",
    "get_cluster": "cluster",
    "get_usage": "usage",
    "get_readiness": "readiness",
}
"""By operation, the method of the Python client; the TypeScript client has the same ones in camelCase."""
