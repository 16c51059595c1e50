"""The training, read from top to bottom: every rank runs each line of `train_lora`.

1. Check: the base model is the one of the spec.
2. Encode: images and captions become latents and conditioning, through the cache; the encoders are freed.
3. Load: the denoiser with a new adapter, then the newest training state, or the weights that the run starts with.
4. Train: one optimizer step per turn. An epoch's end is validated, exported and sampled as its plan says; training
   states are saved when they are due, and before the run stops on request.
5. Export: the final file, read back and compared.

Two objects hide how many ranks there are. `Ranks` shares a step's images and sums the gradients; with one rank it does
nothing. `RunOutput` has everything that leaves the run (events, history, states, files, samples); in other ranks than
the first, `NoOutput` takes its place.
"""

from __future__ import annotations

import errno
from dataclasses import replace

from influencerai.domain import StageEvent, TrainingResult, TrainingSpec
from influencerai.errors import StoppedError
from influencerai.lora.first_weights import read_first_weights
from influencerai.models.device import memory_errors
from influencerai.models.family import load_family
from influencerai.models.loadable_model import find_loadable_model
from influencerai.train.assembly import build, encode
from influencerai.train.backend import RunContext
from influencerai.train.preparation import check_model
from influencerai.train.runs.output import NoOutput, RunOutput
from influencerai.train.runs.training_state import load_newest
from influencerai.training_plan import TrainingPlan
from influencerai.training_plan.memory import smaller_images


def train_lora(spec: TrainingSpec, context: RunContext) -> TrainingResult:
    """Train `spec` to its end, from the newest training state in `context.run_dir` if there is one.

    Returns the same in all ranks.

    Raises:
        StoppedError: `context.should_stop` returned True; the state is saved.
        OSError: the ranks found training states of different steps (ESTALE), or a file cannot be written.
    """
    ranks, plan = context.ranks, TrainingPlan(spec)

    context.emit(StageEvent(stage="checking"))
    base = find_loadable_model(context.model_name or spec.model.name, models_dirs=context.models_dirs)
    check_model(spec, base)
    base = replace(base, prediction_type=spec.model.prediction_type, zero_terminal_snr=spec.model.zero_terminal_snr)
    family = load_family(base.family)

    with memory_errors(spec.plan.device_name, remedy=smaller_images(spec)), ranks.first_ahead():
        data = encode(spec, plan, context, base=base, family=family)

    context.emit(StageEvent(stage="loading"))
    optimization, components, adapter = build(spec, plan, base=base, family=family, data=data, ranks=ranks)
    state = load_newest(context.run_dir, spec_id=spec.id)
    if state:
        optimization.restore(state)
    elif spec.origin:
        weights = read_first_weights(spec, context.run_dir, adapter=adapter, family=family)
        optimization.start_from(weights, step=spec.origin.step)
    _check_same_step(ranks.gather(optimization.step))

    output = (
        RunOutput(spec, plan, context, base=base, optimization=optimization, components=components, adapter=adapter)
        if ranks.is_first
        else NoOutput()
    )
    with output.running(state):
        while optimization.step < plan.total_steps:
            if ranks.agree(context.should_stop):
                output.save()
                raise StoppedError(f"Stopped at step {optimization.step} of {plan.total_steps}; the state is saved.")
            output.add(optimization.run_step())
            epoch, steps_into_epoch = divmod(optimization.step, plan.steps_per_epoch)
            if steps_into_epoch == 0:
                if epoch in plan.validation_epochs:
                    output.validated(optimization.validation_loss(), epoch=epoch)
                output.end_epoch(epoch)
            output.save_if_due()
        output.save()
        output.export()
    return ranks.from_first(output.result)


def _check_same_step(steps: list[int]) -> None:
    """Raise OSError (ESTALE) unless all ranks start at one step: a shared file system may show a new file late."""
    if len(set(steps)) > 1:
        raise OSError(errno.ESTALE, f"The ranks found states of different steps: {steps}")
