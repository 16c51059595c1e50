"""A dataset's report and its plan, as tables and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from influencerai.live.text import visible
from influencerai.planning import BatchPlan

if TYPE_CHECKING:
    from influencerai.imageset import ImageSetReport


def print_findings(console: Console, report: ImageSetReport) -> None:
    """Every error, warning and note once, with the files that it is about; then the counts."""
    from influencerai.imageset import listed

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
            files = listed(paths, shown=1)
            table.add_row(f"[{styles[level]}]{level}", escape(visible(files)), escape(visible(text)))
        console.print(table)
        console.print()
    console.print(
        f"{report.image_count} images, {report.usable_count} usable, {report.captioned_count} with a caption; "
        f"{_count(report.error_count, 'error')}, {_count(report.warning_count, 'warning')}",
        style="red" if report.error_count else None,
    )


def print_plan(console: Console, plan: BatchPlan) -> None:
    """The sizes that the images are trained in, and the steps."""
    sizes = _bucket_sizes(plan)
    table = Table("size", "images", box=None, pad_edge=False)
    for (width, height), count in sizes.items():
        table.add_row(f"{width} x {height}", str(count))
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


def plan_document(plan: BatchPlan) -> dict[str, Any]:
    """The plan for scripts."""
    return {
        "imagesPerEpoch": plan.images_per_epoch,
        "stepsPerEpoch": plan.steps_per_epoch,
        "epochs": plan.epochs,
        "totalSteps": plan.total_steps,
        "imagesSeen": plan.total_images,
        "validationImages": len(plan.validation),
        "buckets": [
            {"width": width, "height": height, "images": count}
            for (width, height), count in _bucket_sizes(plan).items()
        ],
        "warnings": list(plan.warnings),
    }


def _bucket_sizes(plan: BatchPlan) -> dict[tuple[int, int], int]:
    """Images per size, widest first."""
    sizes = Counter((plan.bucket(index).width, plan.bucket(index).height) for index in plan.training)
    return dict(sorted(sizes.items(), reverse=True))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
