"""`train --dry-run`: everything that can be known before a training, and nothing stored."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from influencerai.cli.common import standard_output
from influencerai.cli.dataset_tables import plan_document, print_findings, print_plan
from influencerai.cli.outcome import print_result
from influencerai.domain import TrainingSpec
from influencerai.progress.text import visible
from influencerai.settings import Settings
from influencerai.train.light_check import check_training, refuse_warnings
from influencerai.training_plan import ResourceEstimate, TrainingPlan, estimate, exposure_text
from influencerai.training_plan.config_sources import ResolvedConfig


def show_preflight(
    resolved: ResolvedConfig, dataset: str, *, settings: Settings, init_from: str | None, strict: bool, as_json: bool
) -> None:
    """Check dataset, model and device as a run does, and print what it would do and warn of.

    Raises:
        InfluencerAIError: what a run would be refused for; with `strict` also its warnings.
    """
    images = check_training(resolved.config, dataset, settings=settings, init_from=init_from).dataset

    from influencerai.basemodel.unet_size import count_parameters
    from influencerai.train.trainer import Trainer

    preparation = Trainer(resolved.config, settings=settings).prepare(dataset, report=images)
    spec, report = preparation.spec, preparation.report
    plan, cost = TrainingPlan(spec), estimate(spec, denoiser_parameters=count_parameters(preparation.base))
    warnings = [*settings.warnings, *resolved.warnings, *preparation.warnings]
    if strict and as_json:
        refuse_warnings(warnings)
    if as_json:
        print_result(
            {
                "dryRun": True,
                "spec": spec.to_wire(),
                "plan": plan_document(plan),
                "memoryGb": cost.memory_gb,
                "dataset": report.to_wire(),
                "warnings": warnings,
            }
        )
        return
    console = standard_output()
    print_findings(console, report)
    print_plan(console, plan)
    console.print()
    console.print(_spec_table(spec, cost))
    for text in warnings:
        if text not in plan.warnings:
            console.print(f"[yellow]Warning:[/] {escape(visible(text))}")
    if strict:
        refuse_warnings(warnings)
    console.print("Dry run: this would train. Nothing was trained or stored.")


def _spec_table(spec: TrainingSpec, cost: ResourceEstimate) -> Table:
    config, options, execution = spec.config, spec.options, spec.plan
    memory = f"about {cost.memory_gb:g} GB while training" if cost.memory_gb else cost.basis
    rows = {
        "LoRA": f"{config.name}: rank {config.network_dim}, alpha {config.network_alpha:g}, {options.target_modules}",
        "Base model": f"{spec.model.name} ({spec.model.family}, {spec.model.prediction_type})",
        "Optimizer": f"{options.optimizer}, {options.lr_scheduler}, learning rate {config.learning_rate:g}",
        "Seen": exposure_text(TrainingPlan(spec)),
        "Batch": f"{config.batch_size} x {options.gradient_accumulation}, seed {spec.seed}",
        "Device": f"{execution.device_name}, {execution.precision}, {execution.threads} threads",
        "Memory": memory,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}", escape(visible(value)))
    return table
