"""Companion words: how programs name the files that they put beside a picture, as tables by kind of file.

A name is a companion's only by its relation to a picture: `01_mask.png` beside `01.png`. Names are cut into words at
blanks, dots, hyphens, underscores, plus signs and brackets, and compared without regard to case.
"""

from __future__ import annotations

import re

SEPARATORS = re.compile(r"[ ._+()\[\]{}-]+")


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MASK_WORDS = words(
    "mask masks masklabel"  # OneTrainer writes `-masklabel`, A1111 `-mask`, annotation tools `_mask_0`
    " matte mattes alpha trimap silhouette"  # of cut-outs: rembg, Photoshop, matting models
    " segmentation segmentations segmap segm seg segs parsing"  # Segment Anything, face and body parsers
)
CONTROL_WORDS = words(
    "condlabel conditioning cond control controlnet hint"  # OneTrainer, diffusers, SimpleTuner
    " depth depths depthmap depthmaps disparity midas zoe leres"  # preprocessors of ControlNet, from here on
    " canny edge edges edgemap"
    " pose poses openpose dwpose bodypose densepose skeleton skeletons keypoint keypoints landmark landmarks"
    " normal normals normalmap normalmaps normalbae bae"
    " lineart linearts softedge softedges scribble scribbles sketch sketches hed pidi pidinet teed xdog mlsd hough"
)
COMPANION_DETAILS = words(
    "map maps image images img imgs picture pictures label labels data dataset raw result results output outputs"
    " detected preprocessed composite annotation annotations annotated"
    " colored colorized inverted invert inv refined binary soft hard feathered blurred manual auto"
    " inpaint inpainting outpaint outpainting"
    " full half anime realistic coarse fine anything safe v vits vitb vitl"  # names of preprocessors
    " sam dw ade20k coco ofade20k ofcoco oneformer uniformer animal animals"
    " face faces hand hands hair head eyes mouth body person subject background bg foreground fg cloth clothes"
    " png jpg jpeg webp train training val validation test target source of for"
)
"""Words that stand beside those of masks and control images, and say nothing alone."""

THUMBNAIL_WORDS = words(
    "thumb thumbs thumbnail thumbnails thm tn"  # galleries, cameras, Windows; QNAP and Synology hide theirs
    " preview previews lowres"  # Lightroom, model managers
)
THUMBNAIL_DETAILS = words("small medium large s m l xl cache image images img png jpg jpeg webp")
SMALLER_COPY = re.compile(r"\d{2,5}x\d{2,5}")
"""WordPress writes `01-300x200.jpg` beside `01.jpg`, kohya's script for smaller copies `01+512x512.jpg`."""

BACKUP_WORDS = words(
    "bak bkp backup backups orig original originals tmp temp"
    " autosave autosaved autorecover autorecovered recovered unsaved"
)
BACKUP_DETAILS = words("copy of image images img picture pictures file png jpg jpeg webp save saved")
EARLIER_STEP = re.compile(r"before (highres|hires) fix|before face restoration|before colou?r correction|init image")
"""A1111 saves the steps before the last as `00001-42-before-highres-fix.png`."""
CONFLICT = re.compile(r"conflict|conflicted|sfconflict|\w*caseconflict|whitespaceconflict|tailcharacterconflict")
"""Dropbox and Nextcloud write `01 (conflicted copy 2026-01-31).png`, Syncthing `01.sync-conflict-20260131-....png`,
Resilio `01.Conflict.png`, Seafile `01 (SFConflict ...).png`, Synology Drive `01_PC_Jan-31-0901-2026_CaseConflict.png`.
Names of computers and people stand beside the word."""

CLEAR_FOLDERS = words(
    "masklabel masklabels matte mattes trimap segmentation segmentations segmap"
    " conditioning controlnet depthmap depthmaps canny openpose dwpose densepose skeleton skeletons keypoints"
    " normalmap normalmaps normalbae lineart softedge scribble scribbles hed pidinet mlsd hough"
    " thumb thumbs thumbnail thumbnails"
)
"""Words that make a folder one of companions even where no picture has the name of one of its files."""
CLEAR_PAIRS = words("depth normal edge pose control mask segmentation alpha detected")
"""Likewise where one of FOLDER_NOUNS stands beside: `depth_maps`."""
FOLDER_NOUNS = words("map maps label labels")

PICTURE_NOUNS = words("image img picture photo input source rgb")
"""Beside `image.png`, a file that is only called `mask.png` or `depth.png` is that of this picture."""

SCRATCH_FOLDERS = {"clipspace": "mask", "detected_maps": "control"}
"""ComfyUI keeps the masks of its editor in the first, A1111's ControlNet what its preprocessors drew in the second."""
SCRATCH_NAMES = re.compile(r"clipspace-(mask|paint|painted|painted-masked)-\d.*", re.IGNORECASE)
"""The same outside of that folder."""
