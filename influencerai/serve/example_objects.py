"""Example objects: one tenant's dataset, configuration and job, as the API shows them at each moment of their story."""

from __future__ import annotations

from typing import Any

from influencerai.domain.presets import PRESETS
from influencerai.domain.problem import CANCELLATION

DATASET_ID = "0198f3a1-5c00-7000-8000-00000000000a"
CONFIG_ID = "0198f3a1-5c00-7000-8000-00000000000b"
JOB_ID = "0198f3a1-5c00-7000-8000-00000000000c"
_TENANT = "tenant_demo"
LORA = "my-influencer-v1-final.safetensors"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

DATASET_DRAFT: dict[str, Any] = {
    "kind": "lora-training",
    "path": "data/datasets/my-influencer",
    "meta": {"imageCount": 25, "resolution": "1024x1024", "triggerWord": "ohwx"},
}
DATASET = {
    "id": DATASET_ID,
    "tenantId": _TENANT,
    **DATASET_DRAFT,
    "status": "ready",
    "createdAt": "2025-01-15T10:30:00.000Z",
    "updatedAt": "2025-01-15T10:30:00.000Z",
}
CONFIG_DRAFT = {
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
CONFIG_CHANGE = {"epochs": 30, "learningRate": 0.00005, "isDefault": True}
CONFIG = {
    "id": CONFIG_ID,
    "tenantId": _TENANT,
    **CONFIG_DRAFT,
    "createdAt": "2025-01-15T11:00:00.000Z",
    "updatedAt": "2025-01-15T11:00:00.000Z",
}
NODE = {
    "id": "8538000ccd7e49a40969d92ad15d3d8e8afe451dc356b8dfeaf72646",
    "name": "gpu-box-1",
    "state": "ready",
    "problem": None,
    "cpus": 16.0,
    "cpusHeld": 2.0,
    "memoryGb": 64.0,
    "memoryHeldGb": 8.1,
    "devices": [{"name": "NVIDIA GeForce RTX 4090", "memoryGb": 24.0, "held": 1.0}],
    "jobs": [{"id": JOB_ID, "attempt": 1, "startedAt": "2025-01-15T12:00:05.000Z", "devices": 1.0}],
    "otherJobs": 0,
}
MODEL = {
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
ABSENT_MODEL = {
    "name": "sd15",
    "available": False,
    "alias": True,
    "hubId": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "problem": "There is no base model 'sd15'.",
    "remedy": "Copy the model to models/stable-diffusion-v1-5/stable-diffusion-v1-5.",
}
PRESET = PRESETS["balanced"].to_wire()
JOB_DRAFT = {"type": "lora-training", "payload": {"datasetId": DATASET_ID, "loraConfigId": CONFIG_ID}}
JOB_CHANGE = {
    "status": "running",
    "result": {"progress": {"currentEpoch": 5, "totalEpochs": 20, "loss": 0.0456}},
}
PENDING = {
    "id": JOB_ID,
    "tenantId": _TENANT,
    **JOB_DRAFT,
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
RUNNING = {
    **PENDING,
    **JOB_CHANGE,
    "stage": "training",
    "startedAt": "2025-01-15T11:31:00.000Z",
    "updatedAt": "2025-01-15T11:45:00.000Z",
}
COMPLETED = {
    **RUNNING,
    "status": "completed",
    "result": {
        "loraPath": f"data/loras/my-influencer-v1/{LORA}",
        "checkpoints": [
            "my-influencer-v1-epoch-5.safetensors",
            "my-influencer-v1-epoch-10.safetensors",
            "my-influencer-v1-epoch-15.safetensors",
            LORA,
        ],
        "finalLoss": 0.0123,
        "trainingTimeMinutes": 95,
    },
    "stage": None,
    "finishedAt": "2025-01-15T13:06:00.000Z",
    "updatedAt": "2025-01-15T13:06:00.000Z",
}
CANCELLED = {
    **RUNNING,
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
ATTEMPT = {
    "number": 1,
    "node": "gpu-1",
    "startedAt": "2025-01-15T11:31:00.000Z",
    "endedAt": "2025-01-15T13:06:00.000Z",
    "outcome": "completed",
    "error": None,
}
IMAGE = {
    "path": "01.png",
    "width": 1024,
    "height": 1024,
    "caption": "ohwx woman, smiling, red dress",
    "captionSource": "txt",
    "usable": True,
    "errors": [],
    "warnings": [],
    "thumbnail": f"/datasets/{DATASET_ID}/images/01.png/thumbnail",
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
REPORT = {
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
ARTIFACT = {
    "name": LORA,
    "kind": "lora",
    "path": f"data/loras/my-influencer-v1/{LORA}",
    "size": 85_000_000,
    "sha256": _SHA256,
    "step": 260,
    "epoch": 20,
    "createdAt": "2025-01-15T13:06:00.000Z",
    "url": f"/jobs/{JOB_ID}/artifacts/{LORA}",
}
METRIC = {
    "step": 65,
    "epoch": 5,
    "loss": 0.0456,
    "learningRate": 0.000096,
    "imagesPerSecond": 1.1,
    "validationLoss": None,
}
EVENT = {"seq": 2, "type": "progress", "data": JOB_CHANGE["result"], "createdAt": "2025-01-15T11:45:00.000Z"}
SPANS = [
    {"date": "2025-01-08", "completed": 12, "failed": 2, "pending": 1, "running": 3},
    {"date": "2025-01-15", "completed": 18, "failed": 1, "pending": 0, "running": 2},
]
DELETED = {"success": True, "warnings": []}


_QUOTAS = (
    ("datasets", 2, 1000, "default"),
    ("configs", 3, 1000, "default"),
    ("storedGib", 1.5, 200, "tenant"),
    ("activeJobs", 1, 5, "default"),
    ("jobsPerDay", 4, 500, "default"),
    ("uploadMib", None, 2048, "default"),
    ("gpuHoursPerMonth", 1.25, None, "default"),
)
USAGE: dict[str, Any] = {
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
