"""Inspection: reads a dataset folder file by file and reports its faults."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from influencerai.dataset.captions import Caption, kohya_folder, read_captions
from influencerai.dataset.classification import HEAD_BYTES, classify
from influencerai.dataset.decoding import Decoding
from influencerai.dataset.file_kinds import PICTURE, FileKind
from influencerai.dataset.file_names import name_key
from influencerai.dataset.folder import Listing, list_folder, read_file, read_head
from influencerai.dataset.formats import IMAGE_SUFFIXES
from influencerai.dataset.image_file import MAX_FILE_BYTES, MAX_PIXELS
from influencerai.dataset.left_out import left_out_files, left_out_findings, named
from influencerai.dataset.outliers import TINY_SIDE, Seen, outliers
from influencerai.dataset.picture_facts import PictureFacts
from influencerai.dataset.report import DatasetReport, ImageReport, LeftOut, listed
from influencerai.dataset.trigger_word import contains_trigger
from influencerai.errors import DatasetError
from influencerai.files.beneath import shown_path

FEW_IMAGES = 5
RECOMMENDED_IMAGES = (15, 30)
"""As few and as many as README advises."""
LISTED_REASONS = 3
MAX_SIDE_RATIO = 16
"""A longer side over a shorter one; beyond it nothing that is worth training remains after cropping."""


def inspect_dataset(
    folder: Path,
    *,
    trigger_word: str | None = None,
    resolution: int | None = None,
    max_pixels: int = MAX_PIXELS,
    decoding: Decoding | None = None,
    follow_links: bool = False,
) -> DatasetReport:
    """Read every image and caption of a folder, and report the faults of each file.

    Subfolders are included, hidden ones are not. Images that fail are listed with their errors; the set fails only
    when nothing is usable or a table of captions is broken. Files that are neither pictures nor captions are listed
    by kind.

    Args:
        folder: the dataset.
        trigger_word: the caption of images that have none; the others are checked for it.
        resolution: training resolution in pixels; smaller images get a warning.
        max_pixels: cap on width x height of an image.
        decoding: limits that a process with several inspections shares; its check may end the inspection.
        follow_links: whether links may leave the folder. Only for a path that the user of this machine typed.
    """
    decoding = decoding or Decoding()
    trigger_word = (trigger_word or "").strip() or None
    try:
        if not folder.exists():
            raise DatasetError("The folder does not exist.", remedy="Check the path.")
        if not folder.is_dir():
            raise DatasetError("This is a file.", remedy="Name the folder that holds the images.")
        listing = list_folder(folder, follow_links=follow_links)
    except (DatasetError, OSError) as error:
        return _report(folder, [], errors=[str(error)], warnings=[])
    root = folder.resolve() if follow_links else folder
    inside = None if follow_links else root
    kinds = _kinds(root, listing, inside=inside)
    paths = [path for path in listing.files if kinds[path] is PICTURE]
    captions = read_captions(root, kinds=kinds, images=paths, trigger_word=trigger_word, follow_links=follow_links)
    trained = [path for path in paths if _repeats(path) > 0]
    left_out = left_out_files(kinds)
    left_out_warnings, notes = left_out_findings(left_out)
    warnings = [*listing.warnings, *left_out_warnings, *captions.warnings]
    warnings += _alike_names(paths)
    if len(trained) < len(paths):
        warnings.append(f"{len(paths) - len(trained)} images are left out: their folder's name asks for 0 repeats.")
    inspected = [
        _inspect(
            root,
            path,
            caption=captions.by_image[path],
            trigger_word=trigger_word,
            max_pixels=max_pixels,
            inside=inside,
            decoding=decoding,
        )
        for path in trained
    ]
    found = _with_first(image for image, _ in inspected)
    images = [_compared(image, duplicate_of=first, resolution=resolution) for image, first in found]
    originals = {image.path for image in images if not image.duplicate_of}
    odd_warnings, odd_notes = outliers(
        [Seen(image.path, facts) for image, facts in inspected if facts and image.path in originals],
        smallest_side=0 if resolution else TINY_SIDE,  # Else each is compared with the resolution.
    )
    warnings += odd_warnings
    notes += odd_notes
    images += [ImageReport(path=path, errors=(reason,)) for path, reason in listing.refused.items()]
    images.sort(key=lambda image: image.path)
    notes += captions.notes
    if listing.followed:
        notes.append(f"Links that leave the folder are followed: {listed(listing.followed)}.")
    substituted = sum(image.caption_source == "trigger word" for image in images if image.usable)
    if substituted:
        text = f"{substituted} images have no caption and get the trigger word as theirs"
        if captions.unused:
            warnings.append(f"{text}, although there are files that look like captions: {listed(captions.unused)}.")
        else:
            notes.append(f"{text}.")
    return _report(folder, images, errors=captions.errors, warnings=warnings, notes=notes, left_out=left_out)


def count_candidates(folder: Path) -> int | None:
    """The number of files of a folder that `inspect_dataset` would read as images; None where there is no folder."""
    try:
        if not folder.is_dir():
            return None
        listing = list_folder(folder)
        kinds = _kinds(folder, listing, inside=folder)
        return sum(kinds[path] is PICTURE for path in listing.files)
    except (DatasetError, OSError):
        return 0


def _kinds(root: Path, listing: Listing, *, inside: Path | None) -> dict[str, FileKind]:
    """The kind of every entry of a folder."""

    def head(path: str) -> bytes:
        try:
            return read_head(root / path, size=HEAD_BYTES, inside=inside)
        except DatasetError:
            return b""

    return classify([*listing.files, *listing.passed_over], head=head, output_folders=listing.output_folders)


def _alike_names(paths: Sequence[str]) -> list[str]:
    """A warning about images that would be one file on a system that does not tell their names apart."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(name_key(path).casefold(), []).append(path)
    alike = [" and ".join(of) for of in groups.values() if len(of) > 1]
    return [f"Names differ in case or Unicode form only: {listed(alike)}. Rename one of them."] if alike else []


def _repeats(path: str) -> int:
    folder = kohya_folder(path)
    return folder.repeats if folder else 1


def _inspect(
    root: Path,
    path: str,
    *,
    caption: Caption,
    trigger_word: str | None,
    max_pixels: int,
    inside: Path | None,
    decoding: Decoding,
) -> tuple[ImageReport, PictureFacts | None]:
    """The report of one image without what depends on the others, and its facts where it can be used."""
    warnings = list(caption.warnings)
    has_trigger = contains_trigger(caption.text, trigger_word) if trigger_word else None
    if has_trigger is False:
        warnings.append(f"The caption lacks the trigger word '{trigger_word}'.")
    found = ImageReport(
        path=path,
        caption=caption.text,
        caption_source=caption.source,
        repeats=_repeats(path),
        has_trigger=has_trigger,
        warnings=tuple(warnings),
    )
    try:
        decoding.check()
        data = read_file(root / path, limit=MAX_FILE_BYTES, inside=inside)
        found = found.model_copy(update={"sha256": (sha256 := hashlib.sha256(data).hexdigest())})
        facts = decoding.facts(data, sha256=sha256, max_pixels=max_pixels)
        width, height = facts.width, facts.height
        if max(width, height) > MAX_SIDE_RATIO * min(width, height):
            text = f"The sides, {width} x {height}, differ by more than 1:{MAX_SIDE_RATIO}."
            raise DatasetError(text, remedy="Crop it to what you want to train on.")
    except DatasetError as error:
        return found.model_copy(update={"errors": (str(error),), "warnings": ()}), None
    named = IMAGE_SUFFIXES.get(PurePosixPath(path).suffix.lower())
    if named != facts.format:
        warnings.append(f"The file is {facts.format} by content, which its name does not say.")
    if facts.is_animated:
        whole, part = ("has several pages", "page") if facts.format == "TIFF" else ("is an animation", "frame")
        warnings.append(f"The file {whole}, of which the first {part} is used.")
    update = {"format": facts.format, "width": width, "height": height, "warnings": tuple(warnings)}
    return found.model_copy(update=update), facts


def _with_first(images: Iterable[ImageReport]) -> Iterator[tuple[ImageReport, str | None]]:
    """Each image with the path of an earlier usable one that has the same bytes, or None."""
    seen: dict[str, str] = {}
    for image in images:
        first = seen.setdefault(image.sha256, image.path) if image.usable and image.sha256 else image.path
        yield image, first if first != image.path else None


def _compared(image: ImageReport, *, duplicate_of: str | None, resolution: int | None) -> ImageReport:
    """The image with the warnings that depend on the other images and on the training."""
    warnings = list(image.warnings)
    if duplicate_of:
        warnings.append(f"The file has the same bytes as {duplicate_of}.")
    if resolution and image.width and image.height and image.width * image.height < resolution**2:
        warnings.append(
            f"The image, {image.width} x {image.height}, is smaller than the training resolution "
            f"{resolution} and is enlarged."
        )
    return image.model_copy(update={"duplicate_of": duplicate_of, "warnings": tuple(warnings)})


def _report(
    folder: Path,
    images: Sequence[ImageReport],
    *,
    errors: Sequence[str],
    warnings: Sequence[str],
    notes: Sequence[str] = (),
    left_out: Sequence[LeftOut] = (),
) -> DatasetReport:
    errors, warnings, notes = list(errors), list(warnings), list(notes)
    usable = [image for image in images if image.usable]
    few, many = RECOMMENDED_IMAGES
    if not errors and not usable:
        errors.append(_nothing_usable(images, left_out))
    elif usable and len(usable) < FEW_IMAGES:
        warnings.append(f"A LoRA of {len(usable)} images shows little but these; use {few} to {many}.")
    elif usable and len(usable) < few:
        notes.append(f"There are {len(usable)} images; {few} to {many} are recommended.")
    named = (kohya_folder(image.path) for image in usable)
    for repeated, count in Counter(found for found in named if found and found.repeats > 1).items():
        pictures = "1 image" if count == 1 else f"{count} images"
        notes.append(f"{repeated.path}: {repeated.repeats} repeats of {pictures}")
    return DatasetReport(
        folder=str(shown_path(folder)),
        status="failed" if errors else "ready",
        images=tuple(images),
        left_out=tuple(left_out),
        errors=tuple(errors),
        warnings=tuple(warnings),
        notes=tuple(notes),
        image_count=len(images),
        usable_count=len(usable),
        captioned_count=sum(image.caption_source not in ("trigger word", "none") for image in usable),
        error_count=len(errors) + sum(len(image.errors) for image in images),
        warning_count=len(warnings) + sum(len(image.warnings) for image in images),
    )


def _nothing_usable(images: Sequence[ImageReport], left_out: Sequence[LeftOut]) -> str:
    if not images:
        found = "".join(f" {named(files)} are not used: {files.reason} {files.remedy}" for files in left_out)
        return f"It holds no images. Put JPEG, PNG or WebP files into it.{found}"
    reasons = " ".join(f"{image.path}: {image.errors[0]}" for image in images[:LISTED_REASONS])
    more = f" And {len(images) - LISTED_REASONS} more." if len(images) > LISTED_REASONS else ""
    return f"None of its {len(images)} images can be used. {reasons}{more}"
