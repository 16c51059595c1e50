"""Looking at a folder of images and captions, and reading one image as RGB. Pillow only, no torch."""

from influencerai.dataset.image_file import MAX_PIXELS, load_rgb
from influencerai.dataset.inspection import count_candidates, inspect_dataset
from influencerai.dataset.report import DatasetReport, ImageReport, listed, samples

__all__ = [
    "MAX_PIXELS",
    "DatasetReport",
    "ImageReport",
    "count_candidates",
    "inspect_dataset",
    "listed",
    "load_rgb",
    "samples",
]
