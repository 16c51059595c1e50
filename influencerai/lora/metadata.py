"""Metadata of a LoRA file: kohya's `ss_*` and ModelSpec 1.0.1, from the frozen spec and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC
from pathlib import PurePath
from typing import Any

from influencerai.domain import TrainingSpec
from influencerai.domain.lora_layout import Layout
from influencerai.models.family import Family
from influencerai.training_plan import TrainingPlan

_MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_ORIGINAL_CODE = "https://github.com/Stability-AI/generative-models"


def training_metadata(
    spec: TrainingSpec, *, plan: TrainingPlan, family: Family, step: int, epoch: int
) -> dict[str, str]:
    """`ss_*` as sd-scripts names and writes them (Python's text of a value, JSON of a nested one).

    AUTOMATIC1111 reads the base's version (it hides a LoRA from another base), the output name (the alias in a
    prompt) and the tags. `step` and `epoch` are what the weights have seen.
    """
    config, options = spec.config, spec.options
    sides = [side for bucket in plan.buckets.buckets for side in (bucket.width, bucket.height)]
    values: dict[str, Any] = {
        "ss_session_id": int(spec.id[:8], 16),
        "ss_training_started_at": _created_at(spec).timestamp(),
        "ss_output_name": spec.output_name,
        "ss_training_comment": config.description,
        # The base
        "ss_v2": False,
        "ss_base_model_version": family.ss_base_model_version,
        "ss_sd_model_name": _model_name(spec.model.name),
        "ss_clip_skip": None,
        "ss_max_token_length": None,
        # The network
        "ss_network_module": "networks.lora",
        "ss_network_dim": config.network_dim,
        "ss_network_alpha": config.network_alpha,
        "ss_network_dropout": None,
        "ss_network_args": _network_args(spec),
        # Progress
        "ss_steps": step,
        "ss_epoch": epoch,
        "ss_num_epochs": config.epochs,
        "ss_max_train_steps": plan.total_steps,
        "ss_num_train_images": plan.images_per_epoch,
        "ss_num_reg_images": 0,
        "ss_num_batches_per_epoch": plan.batches_per_epoch,
        "ss_gradient_accumulation_steps": options.gradient_accumulation,
        # Optimization
        "ss_learning_rate": config.learning_rate,
        "ss_unet_lr": config.learning_rate,
        "ss_optimizer": options.optimizer,
        "ss_lr_scheduler": options.lr_scheduler,
        "ss_lr_warmup_steps": plan.warmup_steps,
        "ss_max_grad_norm": options.max_grad_norm,
        "ss_min_snr_gamma": options.min_snr_gamma,
        "ss_noise_offset": options.noise_offset or None,
        "ss_zero_terminal_snr": spec.model.zero_terminal_snr,
        "ss_seed": spec.seed,
        "ss_mixed_precision": _MIXED_PRECISION[spec.plan.precision],
        "ss_gradient_checkpointing": spec.plan.gradient_checkpointing,
        "ss_cache_latents": True,
        # The dataset
        "ss_batch_size_per_device": -(-config.batch_size // spec.plan.world_size),
        "ss_total_batch_size": config.batch_size,
        "ss_resolution": (plan.buckets.side, plan.buckets.side),
        "ss_enable_bucket": options.aspect_ratio_buckets,
        "ss_min_bucket_reso": min(sides),
        "ss_max_bucket_reso": max(sides),
        "ss_bucket_info": _bucket_info(spec, plan),
        "ss_flip_aug": options.flip,
        "ss_shuffle_caption": options.shuffle_tags,
        "ss_keep_tokens": options.keep_tokens,
        "ss_caption_dropout_rate": options.caption_dropout,
        "ss_dataset_dirs": _dataset_dirs(spec, plan),
        "ss_datasets": [_dataset(spec, plan, sides)],
        "ss_tag_frequency": _tag_frequency(spec, plan),
        # Ours
        "ss_influencerai_spec": spec.id,
        "ss_influencerai_base_fingerprint": spec.model.fingerprint,
    }
    if options.images_seen:
        values["ss_influencerai_images_seen"] = plan.total_images
    if spec.origin:
        values["ss_influencerai_origin"] = spec.origin.to_wire()
    if options.train_text_encoder:
        values["ss_text_encoder_lr"] = spec.text_encoder_learning_rate
    return {name: _text(value) for name, value in values.items()}


def model_metadata(
    spec: TrainingSpec, *, plan: TrainingPlan, family: Family, layout: Layout, model_hash: str
) -> dict[str, str]:
    """`modelspec.*` of https://github.com/Stability-AI/ModelSpec; `model_hash` is of the tensors' bytes."""
    sgm_names = layout == "kohya" and family.ss_base_model_version.startswith("sdxl_")
    values = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{family.modelspec_architecture}/lora",
        "implementation": _ORIGINAL_CODE if sgm_names else "diffusers",
        "title": spec.config.name,
        "description": spec.config.description,
        "trigger_phrase": spec.options.trigger_word,
        "resolution": f"{plan.buckets.side}x{plan.buckets.side}",
        "prediction_type": "v" if spec.model.prediction_type == "v_prediction" else "epsilon",
        "date": _created_at(spec).isoformat(timespec="seconds"),
        "hash_sha256": f"0x{model_hash}",
    }
    return {f"modelspec.{name}": value for name, value in values.items() if value}


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _created_at(spec: TrainingSpec) -> Any:
    created = spec.created_at
    return created.replace(tzinfo=UTC) if created.tzinfo is None else created.astimezone(UTC)


def _model_name(name: str) -> str:
    """A hub id or alias as it is; of a path the last part, since the rest is the user's own."""
    is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~")) and "\\" not in name
    is_file = name.endswith(".safetensors")
    return name if is_hub_id and not is_file else PurePath(name.replace("\\", "/")).name


def _network_args(spec: TrainingSpec) -> dict[str, str]:
    if spec.options.target_modules != "all":
        return {}
    return {"conv_dim": str(spec.config.network_dim), "conv_alpha": f"{spec.config.network_alpha:g}"}


def _folder(spec: TrainingSpec, plan: TrainingPlan, sample: int) -> str:
    """The image's own folder, or for one at the top what kohya's trainer would have it called."""
    parent = PurePath(spec.samples[sample].path).parent.name
    return parent or f"{plan.repeats(sample)}_{spec.options.trigger_word or spec.output_name}"


def _dataset_dirs(spec: TrainingSpec, plan: TrainingPlan) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for index in plan.training:
        entry = found.setdefault(_folder(spec, plan, index), {"n_repeats": plan.repeats(index), "img_count": 0})
        entry["img_count"] += 1
    return found


def _dataset(spec: TrainingSpec, plan: TrainingPlan, sides: list[int]) -> dict[str, Any]:
    """The whole dataset as sd-scripts writes one that a config file describes: viewers of metadata read this form."""
    options = spec.options
    subsets = [
        {
            "img_count": folder["img_count"],
            "num_repeats": folder["n_repeats"],
            "color_aug": False,
            "flip_aug": options.flip,
            "random_crop": False,
            "shuffle_caption": options.shuffle_tags,
            "keep_tokens": options.keep_tokens,
            "image_dir": name,
            "class_tokens": options.trigger_word or None,
            "is_reg": False,
        }
        for name, folder in _dataset_dirs(spec, plan).items()
    ]
    return {
        "is_dreambooth": True,
        "batch_size_per_device": -(-spec.config.batch_size // spec.plan.world_size),
        "num_train_images": plan.images_per_epoch,
        "num_reg_images": 0,
        "resolution": [plan.buckets.side, plan.buckets.side],
        "enable_bucket": options.aspect_ratio_buckets,
        "min_bucket_reso": min(sides),
        "max_bucket_reso": max(sides),
        "tag_frequency": _tag_frequency(spec, plan),
        "bucket_info": _bucket_info(spec, plan),
        "subsets": subsets,
    }


def _tag_frequency(spec: TrainingSpec, plan: TrainingPlan) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for index in plan.training:
        tags = (tag.strip() for tag in spec.samples[index].caption.split(","))
        found.setdefault(_folder(spec, plan, index), Counter()).update(tag for tag in tags if tag)
    return {folder: dict(counts) for folder, counts in found.items()}


def _bucket_info(spec: TrainingSpec, plan: TrainingPlan) -> dict[str, Any]:
    counts: Counter[tuple[int, int]] = Counter()
    errors = []
    for index in plan.training:
        sample, bucket = spec.samples[index], plan.bucket(index)
        counts[bucket.width, bucket.height] += plan.repeats(index)
        errors.append(abs(bucket.width / bucket.height - sample.width / sample.height))
    buckets = {
        str(number): {"resolution": list(size), "count": counts[size]} for number, size in enumerate(sorted(counts))
    }
    return {"buckets": buckets, "mean_img_ar_error": sum(errors) / len(errors)}
