"""File kinds: what the files of a dataset folder can be. A file is used, or left out for a reason and with a remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass

CAPTION_SUFFIXES = (".txt", ".caption", ".tags")
"""Of the files that hold the caption of one picture, in order of precedence."""
CAPTION_TABLES = ("metadata.jsonl", "metadata.csv", "captions.json", "captions.jsonl", "captions.csv")
"""Names of the files that hold captions of many pictures, in order of precedence."""
KOHYA_TABLES = re.compile(r"meta(_\w+)?\.json")
"""Names of the metadata files of kohya's trainer, such as `meta_cap.json` and `meta_lat.json`."""
KOHYA_FOLDERS = re.compile(r"(\d{1,3})_(.*)", re.DOTALL)
"""Names of folders that give repeats and a caption. Numbers of four digits are years."""


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """One kind of file. `reason` and `remedy` are sentences, empty for files that are used."""

    name: str
    plural: str = ""
    reason: str = ""
    remedy: str = ""
    is_expected: bool = False
    """Whether such files usually lie beside pictures: they are worth a note, the others a warning."""

    @property
    def is_used(self) -> bool:
        return not self.reason


PICTURE = FileKind(name="picture", plural="pictures")
CAPTION = FileKind(name="caption", plural="captions")
TABLE = FileKind(name="table of captions", plural="tables of captions")
MASK = FileKind(
    name="mask",
    plural="masks",
    reason="Masks are not pictures, and trainings do not use them.",
    remedy="Rename a file that is a picture, or give it a caption file.",
)
CONTROL = FileKind(
    name="control image",
    plural="control images",
    reason="Depth maps, poses and other control images are not trained on.",
    remedy="Rename a file that is a picture, or give it a caption file.",
)
REGULARISATION = FileKind(
    name="regularisation picture",
    plural="regularisation pictures",
    reason="Pictures of the class are not of the character, and trainings do not use them.",
    remedy="Name the folder of the character's pictures as the dataset, or rename the other.",
)
RUN_FILE = FileKind(
    name="file of a run",
    plural="files of runs",
    reason="A training wrote these files into its output folder.",
    remedy="Copy a picture that you want to train on out of the output folder.",
    is_expected=True,
)
DRAWN = FileKind(
    name="sample, grid or plot",
    plural="samples, grids or plots",
    reason="A program drew these pictures about a training.",
    remedy="Rename a file that is a picture of the dataset, or give it a caption file.",
)
THUMBNAIL = FileKind(
    name="thumbnail",
    plural="thumbnails",
    reason="Programs keep smaller copies of pictures in such files.",
    remedy="Rename a file that is a picture of the dataset, or give it a caption file.",
)
CACHE = FileKind(
    name="cache file",
    plural="cache files",
    reason="Trainers cache encoded pictures and captions in such files.",
    remedy="They may stay.",
    is_expected=True,
)
DOWNLOAD = FileKind(
    name="unfinished download",
    plural="unfinished downloads",
    reason="A browser or sync program has not finished these files.",
    remedy="Download them again.",
)
BACKUP = FileKind(
    name="backup or temporary file",
    plural="backup or temporary files",
    reason="Programs keep earlier, unsaved or conflicting versions in such files.",
    remedy="Rename a file that is a picture of the dataset.",
)
EDITOR = FileKind(
    name="file of an editor",
    plural="files of editors",
    reason="These formats (PSD, XCF, KRA, SVG, PDF and the like) are not read.",
    remedy="Convert them to PNG, JPEG or WebP.",
)
RAW = FileKind(
    name="camera RAW",
    plural="camera RAWs",
    reason="The developed picture of the same name is used.",
    remedy="They may stay.",
    is_expected=True,
)
SYSTEM = FileKind(
    name="system file",
    plural="system files",
    reason="The operating system keeps its own notes in such files.",
    remedy="They may stay.",
    is_expected=True,
)
HIDDEN = FileKind(
    name="hidden file",
    plural="hidden files",
    reason="Files and folders whose name begins with a dot are not read.",
    remedy="Rename a file that is a picture of the dataset.",
    is_expected=True,
)
SIDECAR = FileKind(
    name="sidecar",
    plural="sidecars",
    reason="Cameras, editors and downloaders keep facts about a picture in such files.",
    remedy="They may stay.",
    is_expected=True,
)
VIDEO = FileKind(
    name="video or sound",
    plural="videos or sounds",
    reason="Videos are not trained on.",
    remedy="Save the frames that you want to train on as PNG or JPEG.",
)
ARCHIVE = FileKind(
    name="archive", plural="archives", reason="Archives in the folder are not opened.", remedy="Unpack them."
)
DATA_TABLE = FileKind(
    name="data file",
    plural="data files",
    reason="Captions in such files are not read.",
    remedy=f"Save captions as {CAPTION_TABLES[0]}, {CAPTION_TABLES[1]} or a .txt file beside each picture.",
)
WEIGHTS = FileKind(
    name="file of weights",
    plural="files of weights",
    reason="Models do not belong to the dataset.",
    remedy="They may stay.",
    is_expected=True,
)
DOCUMENT = FileKind(
    name="document or configuration",
    plural="documents or configurations",
    reason="Neither pictures nor captions are read from such files.",
    remedy="They may stay.",
    is_expected=True,
)
UNREAD_CAPTION = FileKind(
    name="text of a picture's name",
    plural="texts of pictures' names",
    reason="The name is a picture's, but captions are not read from files of this suffix.",
    remedy=f"Save captions as {', '.join(CAPTION_SUFFIXES)}.",
)
UNREAD_TABLE = FileKind(
    name="table of captions that is not read",
    plural="tables of captions that are not read",
    reason="They look like captions, but tables of this form or name are not read.",
    remedy=f"Save captions as {CAPTION_TABLES[0]}, {CAPTION_TABLES[1]} or a .txt file beside each picture.",
)
UNKNOWN = FileKind(
    name="unknown file",
    plural="unknown files",
    reason="The content is no picture that can be read, and the name none of a caption.",
    remedy="Convert pictures to PNG, JPEG or WebP.",
    is_expected=True,
)

KINDS = {
    kind.name: kind
    for kind in (
        *(PICTURE, CAPTION, TABLE, MASK, CONTROL, REGULARISATION, RUN_FILE, DRAWN, THUMBNAIL, CACHE, DOWNLOAD, BACKUP),
        *(EDITOR, RAW, SYSTEM, HIDDEN, SIDECAR, VIDEO, ARCHIVE, DATA_TABLE, WEIGHTS, DOCUMENT),
        *(UNREAD_CAPTION, UNREAD_TABLE, UNKNOWN),
    )
}
"""Every kind by its name."""
