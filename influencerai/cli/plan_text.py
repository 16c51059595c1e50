"""The plan of a training in two lines, printed before it starts."""

from __future__ import annotations

from influencerai.domain import TrainingSpec
from influencerai.preflight import PlanSummary, Preflight


def chosen_text(found: Preflight) -> str:
    """Images, epochs and steps, then what was chosen for model, LoRA and optimizer; empty where it is not known yet."""
    lines = [_of_plan(found.plan)] if found.plan else []
    lines += [_of_spec(found.spec)] if found.spec else []
    return "\n".join(lines)


def _of_plan(plan: PlanSummary) -> str:
    different = sum(bucket.images for bucket in plan.buckets)
    held_out = f", {plan.validation_images} more held out for validation" if plan.validation_images else ""
    files = (
        f"files after epochs {_listed(plan.save_epochs)} and at the end" if plan.save_epochs else "one file at the end"
    )
    return (
        f"{different} images{held_out}; {plan.epochs} epochs of {plan.images_per_epoch} images: "
        f"{plan.epochs * plan.images_per_epoch} images seen in {plan.total_steps} steps; {files}"
    )


def _of_spec(spec: TrainingSpec) -> str:
    config, options = spec.config, spec.options
    trigger = f", trigger word '{options.trigger_word}'" if options.trigger_word else ""
    return (
        f"{spec.model.name} at {config.resolution} pixels; rank {config.network_dim}, alpha {config.network_alpha:g}; "
        f"{options.optimizer}, {options.lr_scheduler}, learning rate {config.learning_rate:g}; "
        f"batch size {config.batch_size}; seed {spec.seed}{trigger}"
    )


def _listed(epochs: tuple[int, ...]) -> str:
    shown = [str(epoch) for epoch in epochs]
    return ", ".join(shown) if len(shown) <= 5 else f"{shown[0]}, {shown[1]}, ..., {shown[-1]}"
