"""The dry-run backend: every check of a real run, no training, and a tiny valid file that says so."""

from __future__ import annotations

import torch

from influencerai.domain import StageEvent, TrainingResult, TrainingSpec
from influencerai.lora.adapter import LoraWeights
from influencerai.models.family import load_family
from influencerai.models.loadable_model import find_loadable_model
from influencerai.train.backend import RunContext
from influencerai.train.data.encoding import load_pixels
from influencerai.train.preparation import check_model
from influencerai.train.runs.exporter import Exporter
from influencerai.training_plan import TrainingPlan

NOTICE = "Dry run: nothing was trained, and the LoRA file changes nothing."


class DryRunBackend:
    """Reads every image, resolves the base model, and exports an adapter of one module with zero weights."""

    name = "dry-run"

    def train(self, spec: TrainingSpec, context: RunContext) -> TrainingResult:
        with context.ranks.one_fate():
            return context.ranks.from_first(lambda: _run_dry(spec, context))


def _run_dry(spec: TrainingSpec, context: RunContext) -> TrainingResult:
    context.emit(StageEvent(stage="checking"))
    base = find_loadable_model(context.model_name or spec.model.name, models_dirs=context.models_dirs)
    check_model(spec, base)
    family = load_family(base.family)
    plan = TrainingPlan(spec)
    for index, sample in enumerate(spec.samples):
        context.emit(StageEvent(stage="checking", done=index, total=len(spec.samples)))
        crop = plan.crop(index)
        load_pixels(context.dataset_dir, sample, crop.resized, crop.box, max_pixels=context.max_image_pixels)
    context.emit(StageEvent(stage="exporting"))
    component = family.denoiser_component
    denoiser = family.empty_denoiser(base)
    target = family.lora_targets(component, denoiser, "attention")[0]
    layer = denoiser.get_submodule(target)
    assert isinstance(layer, torch.nn.Linear)
    weights = LoraWeights(down=torch.zeros(1, layer.in_features), up=torch.zeros(layer.out_features, 1), alpha=1.0)
    exporter = Exporter(spec, plan, context, family=family)
    lora_path = exporter.write_final({(component, target): weights}, step=0)
    return TrainingResult(
        lora_path=lora_path,
        checkpoints=tuple(exporter.file_names()),
        final_loss=0.0,
        training_time_minutes=0.0,
        warnings=(NOTICE,),
    )
