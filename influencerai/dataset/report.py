"""Report: the findings of an inspection of a dataset folder, which the CLI prints and the API serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from influencerai.domain import SampleSpec
from influencerai.domain.wire import WireModel
from influencerai.errors import DatasetError

ImageFormat = Literal["JPEG", "PNG", "WEBP", "AVIF", "HEIC", "GIF", "BMP", "TIFF"]
CaptionSource = Literal[
    "txt",
    "metadata.jsonl",
    "metadata.csv",
    "captions.json",
    "captions.jsonl",
    "captions.csv",
    "meta_cap.json",
    "folder",
    "trigger word",
    "none",
]
"""`txt` is any file of one image's caption, `meta_cap.json` any of kohya's metadata files."""


LISTED_FILES = 3


class ImageReport(WireModel):
    """One image, or one entry of the folder that was refused. With an error it is not trained on."""

    path: str = Field(description="Relative to the dataset folder, with forward slashes.")
    sha256: str | None = Field(default=None, description="Of the file's bytes; absent where not read.")
    format: ImageFormat | None = Field(default=None, description="By content.")
    width: int | None = Field(default=None, description="Pixels, after EXIF orientation.")
    height: int | None = Field(default=None, description="Pixels, after EXIF orientation.")
    caption: str = ""
    caption_source: CaptionSource = "none"
    repeats: int = Field(default=1, description="Times per epoch, from a folder such as `10_ohwx woman`.")
    has_trigger: bool | None = Field(
        default=None, description="Whether the caption has the trigger word; absent without one."
    )
    duplicate_of: str | None = Field(default=None, description="Path of the first image with the same bytes.")
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        return not self.errors


class LeftOut(WireModel):
    """Files of one kind that are neither pictures nor captions of the dataset."""

    kind: str = Field(description="Such as `mask` or `cache file`.")
    paths: tuple[str, ...] = Field(description="Relative to the dataset folder; the first ones of many.")
    count: int
    reason: str
    remedy: str


class DatasetReport(WireModel):
    """A dataset folder. `failed`: it cannot be trained on. One bad image among good ones does not fail it."""

    folder: str = Field(description="As the caller named it.")
    status: Literal["ready", "failed"]
    images: tuple[ImageReport, ...] = Field(default=(), description="Sorted by path.")
    left_out: tuple[LeftOut, ...] = Field(default=(), description="Files that are neither pictures nor captions.")
    errors: tuple[str, ...] = Field(default=(), description="What forbids a training on this folder.")
    warnings: tuple[str, ...] = Field(default=(), description="What is allowed but probably not meant.")
    notes: tuple[str, ...] = Field(default=(), description="What is good to know.")
    image_count: int = 0
    usable_count: int = 0
    captioned_count: int = Field(0, description="Usable images with a caption of their own or of their folder.")
    error_count: int = Field(default=0, description="Of the set and of every image.")
    warning_count: int = Field(default=0, description="Of the set and of every image.")

    @property
    def usable(self) -> tuple[ImageReport, ...]:
        """The images that can be trained on."""
        return tuple(image for image in self.images if image.usable)

    @property
    def summary(self) -> tuple[str, ...]:
        """The warnings of a training on this set: images left out, each text about images once, then the set's own."""
        left_out = [f"{image.path} ({image.errors[0].removesuffix('.')})" for image in self.images if not image.usable]
        found = [f"{len(left_out)} of {len(self.images)} images are left out: {listed(left_out)}."] if left_out else []
        paths: dict[str, list[str]] = {}
        for image in self.usable:
            for text in image.warnings:
                paths.setdefault(text, []).append(image.path)
        for text, of in paths.items():
            found.append(f"{of[0]}: {text}" if len(of) == 1 else f"{len(of)} images: {text} ({listed(of)})")
        return (*found, *self.warnings)

    def raise_if_unusable(self) -> None:
        """Refuse a folder that cannot be trained on.

        Raises:
            DatasetError: names the folder, what is wrong with it and the remedy.
        """
        if self.errors:
            raise DatasetError(f"{self.folder} cannot be trained on: {' '.join(self.errors)}")


def listed(names: Sequence[str], *, shown: int = LISTED_FILES) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def samples(report: DatasetReport) -> tuple[SampleSpec, ...]:
    """The usable images as they enter a TrainingSpec, sorted by path; an image without caption has "".

    Raises:
        DatasetError: the folder cannot be trained on.
    """
    report.raise_if_unusable()
    found = []
    for image in report.usable:
        assert image.sha256 is not None
        assert image.width is not None
        assert image.height is not None
        found.append(
            SampleSpec(
                path=image.path,
                sha256=image.sha256,
                width=image.width,
                height=image.height,
                caption=image.caption,
                repeats=image.repeats,
            )
        )
    return tuple(found)
