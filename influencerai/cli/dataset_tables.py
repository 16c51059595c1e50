"""A dataset's report and its plan, as tables and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from influencerai.progress.text import visible
from influencerai.training_plan import TrainingPlan

if TYPE_CHECKING:
    from influencerai.dataset import DatasetReport


def print_findings(console: Console, report: DatasetReport, *, verbose: bool = False) -> None:
    """Every error, warning and note once, with the files that it is about; then the counts.

    With `verbose` all files are named, also those that are not part of the dataset.
    """
    from influencerai.dataset import listed

    findings = [("error", text, "") for text in report.errors]
    for image in report.images:
        findings += [("error", text, image.path) for text in image.errors]
        findings += [("warning", text, image.path) for text in image.warnings]
    findings += [("warning", text, "") for text in report.warnings]
    findings += [("note", text, "") for text in report.notes]
    rows: dict[tuple[str, str], list[str]] = {}
    for level, text, path in findings:
        rows.setdefault((level, text), []).append(path)
    if rows:
        table = Table("level", "file", "finding", box=None, pad_edge=False)
        styles = {"error": "red", "warning": "yellow", "note": "dim"}
        for (level, text), paths in rows.items():
            files = "\n".join(paths) if verbose else listed(paths, shown=1)
            shown = "\n".join(escape(visible(file)) for file in files.split("\n"))
            table.add_row(f"[{styles[level]}]{level}", shown, escape(visible(text)))
        console.print(table)
        console.print()
    if verbose and report.left_out:
        table = Table("not part of the dataset", "files", box=None, pad_edge=False)
        for group in report.left_out:
            table.add_row(f"{group.count} x {group.kind}", escape(visible(listed(group.paths, shown=len(group.paths)))))
        console.print(table)
        console.print()
    left_out = [image.path for image in report.images if not image.usable]
    if left_out:
        console.print(
            escape(visible(f"{len(left_out)} of {len(report.images)} images are left out: {listed(left_out)}."))
        )
    console.print(
        f"{report.image_count} images, {report.usable_count} usable, {report.captioned_count} with a caption; "
        f"{_count(report.error_count, 'error')}, {_count(report.warning_count, 'warning')}",
        style="red" if report.error_count else None,
    )


def print_plan(console: Console, plan: TrainingPlan) -> None:
    """The sizes that the images are trained in, and the steps."""
    table = Table("size", "images", "kept", box=None, pad_edge=False)
    for size in plan.sizes:
        kept = f"{size.mean_kept:.0%}"
        if f"{size.least_kept:.0%}" != kept:
            kept += f", at least {size.least_kept:.0%}"
        table.add_row(f"{size.width} x {size.height}", str(size.images), kept)
    console.print()
    console.print(table)
    console.print()
    held_out = f", {len(plan.validation)} images held out for validation" if plan.validation else ""
    console.print(
        f"{plan.images_per_epoch} images per epoch in {_count(plan.steps_per_epoch, 'step')}; "
        f"{_count(plan.total_steps, 'step')} in {_count(plan.epochs, 'epoch')}{held_out}"
    )
    for text in plan.warnings:
        console.print(f"[yellow]Warning:[/] {escape(visible(text))}")


def plan_document(plan: TrainingPlan) -> dict[str, Any]:
    """The plan for scripts."""
    return {
        "imagesPerEpoch": plan.images_per_epoch,
        "stepsPerEpoch": plan.steps_per_epoch,
        "epochs": plan.epochs,
        "totalSteps": plan.total_steps,
        "imagesSeen": plan.total_images,
        "validationImages": len(plan.validation),
        "buckets": [
            {
                "width": size.width,
                "height": size.height,
                "images": size.images,
                "leastKept": round(size.least_kept, 3),
                "meanKept": round(size.mean_kept, 3),
            }
            for size in plan.sizes
        ],
        "cropped": [{"path": path, "kept": round(share, 3)} for path, share in plan.cropped.items()],
        "warnings": list(plan.warnings),
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
