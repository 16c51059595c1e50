"""Samples: pictures of a run's sample prompts, drawn at its epochs with the modules under training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from influencerai.domain import SampleEvent, TrainingSpec, WarningEvent
from influencerai.domain.output_path import slug
from influencerai.errors import InfluencerAIError
from influencerai.files import atomic_file
from influencerai.generate.picture_record import LoraUse, ModelIdentity, encoded, model_label
from influencerai.generate.sampling import draw
from influencerai.models.device import memory_errors
from influencerai.models.family import Family
from influencerai.models.loadable_model import LoadableModel
from influencerai.models.precision import autocast, dtype_of
from influencerai.train.backend import RunContext

SAMPLES_FOLDER = "samples"


def draw_samples(
    spec: TrainingSpec,
    context: RunContext,
    *,
    base: LoadableModel,
    family: Family,
    components: Mapping[str, nn.Module],
    step: int,
    epoch: int,
) -> None:
    """Draw the run's sample prompts with the modules under training into `samples/` beside the LoRA files.

    Epoch 0 is the base model, since a new adapter changes nothing before the first step; or the LoRA that the run
    starts with.

    What the denoiser does afterwards is unchanged: no global generator is touched and modes are restored. Pictures
    that cannot be drawn or written are a WarningEvent.
    """
    device = torch.device(spec.plan.device)
    modes = {name: module.training for name, module in components.items()}
    for module in components.values():
        module.eval()
    folder = context.output_dir / SAMPLES_FOLDER
    paths = []
    try:
        with (
            memory_errors(spec.plan.device_name, remedy="Leave samplePrompts out."),
            autocast(spec.plan.precision, device=device),
        ):
            pipeline = family.pipeline(base, device=device, dtype=dtype_of(spec.plan.precision), **components)
            for index, prompt in enumerate(spec.options.sample_prompts):
                image = draw(
                    pipeline,
                    [prompt],
                    seeds=[spec.seed],
                    size=spec.config.resolution,
                    model=ModelIdentity(name=model_label(spec.model.name), sha256=_file_sha256(base)),
                    lora=_lora_in_training(spec, epoch=epoch),
                    epoch=epoch,
                )[0]
                path = folder / f"epoch-{epoch:04d}-{index}-{slug(prompt, default='prompt', longest=40)}.png"
                atomic_file.write_atomic(path, encoded(image))
                paths.append(str(path))
    except (OSError, InfluencerAIError) as error:
        message = f"epoch {epoch}: samplePrompts cannot be drawn: {error} The training goes on."
        context.emit(WarningEvent(message=message))
    finally:
        for name, module in components.items():
            module.train(modes[name])
    context.emit(SampleEvent(step=step, epoch=epoch, paths=tuple(paths)))


def sampled_files(output_dir: Path) -> list[tuple[int, Path]]:
    """The pictures that lie in a run's output folder, with their epochs."""
    pictures = sorted((output_dir / SAMPLES_FOLDER).glob("epoch-[0-9]*-*.png"))
    return [(int(picture.name.split("-")[1]), picture) for picture in pictures]


def _lora_in_training(spec: TrainingSpec, *, epoch: int) -> LoraUse | None:
    """What the adapter is after `epoch`; before the first step the file that the run starts with, if there is one."""
    if epoch:
        return LoraUse(name=f"{spec.output_name}-epoch-{epoch}", strength=1.0)
    return LoraUse(name=Path(spec.origin.file).stem, strength=1.0) if spec.origin else None


def _file_sha256(base: LoadableModel) -> str | None:
    """Of a single-file model, whose hash the run knows already."""
    return base.fingerprint() if base.layout == "single_file" else None
