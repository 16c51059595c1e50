"""Looking at a folder of images and captions, and reading one image as RGB. Pillow only, no torch."""

from influencerai.imageset.image_file import MAX_PIXELS, load_rgb
from influencerai.imageset.inspection import count_candidates, inspect_imageset
from influencerai.imageset.report import ImageReport, ImageSetReport, listed, samples

__all__ = [
    "MAX_PIXELS",
    "ImageReport",
    "ImageSetReport",
    "count_candidates",
    "inspect_imageset",
    "listed",
    "load_rgb",
    "samples",
]
