"""Classification: the kind of each file of a folder, an archive or an upload, from path, neighbours and first bytes.

Nothing here touches a disk. The caller passes all paths together, because a mask is known by the picture that it
belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from influencerai.domain.output_path import RUN_MARKER
from influencerai.imageset.file_kinds import (
    ARCHIVE,
    BACKUP,
    CACHE,
    CAPTION,
    CAPTION_SUFFIXES,
    CAPTION_TABLES,
    CONTROL,
    DATA_TABLE,
    DOCUMENT,
    DOWNLOAD,
    DRAWN,
    EDITOR,
    HIDDEN,
    KOHYA_TABLES,
    MASK,
    PICTURE,
    RAW,
    REGULARISATION,
    RUN_FILE,
    SIDECAR,
    SYSTEM,
    TABLE,
    UNKNOWN,
    UNREAD_CAPTION,
    VIDEO,
    WEIGHTS,
    FileKind,
)
from influencerai.imageset.file_names import name_key, stem_of
from influencerai.imageset.formats import FORMATS, IMAGE_SUFFIXES, RAW_SUFFIXES, sniff, suffixes

HEAD_BYTES = 512
"""First bytes of a file that tell its kind."""

SYSTEM_FOLDERS = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found", "#recycle"})
_SYSTEM_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".ds_store", "icon\r", ".directory", ".nomedia"}
    | {"picasa.ini", ".picasa.ini", "folder.jpg.tmp", ".localized", ".thumbnails", "sync.ffs_db"}
)
_DOWNLOADS = suffixes("crdownload part partial download opdownload aria2 !ut filepart")
_BACKUPS = suffixes("bak bkp backup old orig tmp temp swp swo autosave lock")
_EDITOR = suffixes(
    "psd psb xcf kra krz ora aseprite ase clip sai sai2 mdp afphoto afdesign af pxd pdn procreate ai eps "
    "ps svg svgz pdf indd cdr blend fig sketch psp pspimage"
)
_SIDECARS = suffixes("xmp aae thm pp3 dop on1 arp cos cof vrd exif photo-edit url lnk webloc")
_VIDEOS = suffixes("mov mp4 m4v avi mkv webm mpg mpeg 3gp mts lrv insv wmv flv wav mp3 m4a aac ogg flac")
_ARCHIVES = suffixes("zip 7z rar tar gz tgz bz2 xz zst cbz cbr")
_DATA = suffixes("json jsonl csv tsv parquet arrow xlsx ods db sqlite sqlite3 lmdb h5 tfrecord")
_WEIGHTS = suffixes("safetensors ckpt pt pth bin gguf onnx pkl")
_DOCUMENTS = suffixes(
    "md rst toml yaml yml ini cfg conf log html htm css js py ipynb sh bat ps1 cmd doc docx odt rtf xml "
    "tex exe dll env gitignore gitattributes sha256 md5"
)
_TEXTS_ABOUT = re.compile(r"(readme|licen[cs]e|notice|changelog|credits|copyright)(\..*)?", re.IGNORECASE)
_UNCONFIRMED = re.compile(r"Unconfirmed \d+")
_CACHE_STEM = re.compile(r"_(sd|sdxl|sd3|flux|fl|te|te_outputs|hv|wan|fk|fp|latents?)(_\w+)?$", re.IGNORECASE)
_CACHE_FOLDERS = frozenset({"_latent_cache", "_t_e_cache", "_clip_vision_cache", "latent_cache", "text_cache", "cache"})
_MASK_WORDS = "mask|masks|masklabel|mask_label|matte|alpha_?mask|segmentation|segm|seg"
_CONTROL_WORDS = (
    "condlabel|cond_label|control|conditioning|depth|depthmap|canny|openpose|dwpose|lineart|softedge|scribble|hed|mlsd|"
    "normalmap|normal_?bae"
)
_BESIDE = re.compile(rf"(?P<of>.+?)[ ._-]+((?P<mask>{_MASK_WORDS})|(?P<control>{_CONTROL_WORDS}))", re.IGNORECASE)
_BEFORE = re.compile(rf"((?P<mask>{_MASK_WORDS})|(?P<control>{_CONTROL_WORDS}))[ ._-]+(?P<of>.+)", re.IGNORECASE)
_MASK_FOLDER = re.compile(rf"({_MASK_WORDS})|({_CONTROL_WORDS})(_images?)?", re.IGNORECASE)
_ALWAYS_MASK = re.compile(r".+-(masklabel|condlabel)", re.IGNORECASE)
_SAMPLE = re.compile(
    r"epoch-\d{4,}-\d+-.*"  # ours
    r"|.*_(e\d{6}|\d{6})_\d{2}_\d{14}(_\d+)?"  # kohya
    r"|\d{10,}__\d{9}_\d+"  # ai-toolkit
    r"|(xyz_|xy_)?grid(-\d+)*(-.*)?|loss|samples|contact-sheet|before-after",
    re.IGNORECASE,
)
_DRAWN_BY = re.compile(rb"tEXtSoftware\0(Matplotlib|InfluencerAI)")
"""Text in plots, and in grids and contact sheets of this program. Single pictures that were drawn may be trained on."""
_REGULARISATION = re.compile(r"reg|regs|regulari[sz]ation(_images)?|class(_images)?", re.IGNORECASE)


def classify(
    paths: Collection[str], *, head: Callable[[str], bytes], output_folders: Iterable[str] = ()
) -> dict[str, FileKind]:
    """The kind of every file.

    Args:
        paths: all files together, relative to the dataset folder, with forward slashes.
        head: the first HEAD_BYTES of a file, or nothing where it cannot be read; asked only where names do not tell.
        output_folders: folders with the marker of a run, relative ("" is the dataset folder itself), beside those
            whose marker is among `paths`.
    """
    marked = {*output_folders} | {path.rpartition("/")[0] for path in paths if path.rpartition("/")[2] == RUN_MARKER}
    folder = _Folder(paths=paths, head=head, output_folders=frozenset(marked))
    return {path: folder.kind(path) for path in paths}


@dataclass(frozen=True)
class _Folder:
    """All files of one folder, by which each is judged."""

    paths: Collection[str]
    head: Callable[[str], bytes]
    output_folders: frozenset[str]
    heads: dict[str, bytes] = field(default_factory=dict)

    def kind(self, path: str) -> FileKind:
        name = PurePosixPath(path)
        suffix = name.suffix.lower()
        if self._is_of_run(name, suffix):
            return RUN_FILE
        for rule in (_of_system, _unfinished, _of_trainer):
            if found := rule(name, suffix):
                return found
        if suffix in CAPTION_SUFFIXES:
            return self._caption(path, name)
        if name.name.lower() in CAPTION_TABLES or KOHYA_TABLES.fullmatch(name.name.lower()):
            return TABLE
        if suffix in IMAGE_SUFFIXES:
            return self._picture(path, name)
        if suffix in RAW_SUFFIXES:
            return RAW if stem_of(path) in self._picture_stems else PICTURE
        return self._other(path, name, suffix)

    def _is_of_run(self, name: PurePosixPath, suffix: str) -> bool:
        """A marked folder below the dataset is the run's; of a dataset that is marked itself, only what runs write."""
        if any(str(parent) in self.output_folders for parent in name.parents if str(parent) != "."):
            return True
        if "" not in self.output_folders:
            return False
        if suffix in IMAGE_SUFFIXES:
            is_drawn = name.parts[0] == "samples" if len(name.parts) > 1 else _SAMPLE.fullmatch(name.stem) is not None
            return is_drawn and not self._has_caption(name)
        return suffix == ".safetensors" and len(name.parts) == 1

    def _caption(self, path: str, name: PurePosixPath) -> FileKind:
        is_about = _TEXTS_ABOUT.fullmatch(name.name) and stem_of(path) not in self._picture_stems
        return DOCUMENT if is_about else CAPTION

    def _picture(self, path: str, name: PurePosixPath) -> FileKind:
        if any(_REGULARISATION.fullmatch(part) for part in name.parts[:-1]) and self._has_character_folder:
            return REGULARISATION
        if _ALWAYS_MASK.fullmatch(name.stem):
            return MASK if name.stem.lower().endswith("masklabel") else CONTROL
        if self._has_caption(name):
            return PICTURE
        if found := self._beside(path, name):
            return found
        if _SAMPLE.fullmatch(name.stem) or (name.suffix.lower() == ".png" and _DRAWN_BY.search(self._head(path))):
            return DRAWN
        return PICTURE

    def _beside(self, path: str, name: PurePosixPath) -> FileKind | None:
        """MASK or CONTROL for `01_mask.png` beside `01.png`, and for `masks/01.png` where another folder has `01`."""
        for pattern in (_BESIDE, _BEFORE):
            match = pattern.fullmatch(name.stem)
            if match and name_key(str(name.with_name(match["of"]))) in self._picture_stems:
                return MASK if match["mask"] else CONTROL
        for part in name.parts[:-1]:
            if (match := _MASK_FOLDER.fullmatch(part)) and self._stands_elsewhere(path, folder=part):
                return MASK if match[1] else CONTROL
        return None

    def _stands_elsewhere(self, path: str, *, folder: str) -> bool:
        """Whether a picture of the same name lies outside of folders called `folder`."""
        stem = name_key(PurePosixPath(path).stem)
        return any(folder not in parts[:-1] and parts[-1] == stem for parts in self._stem_parts.get(stem, ()))

    def _other(self, path: str, name: PurePosixPath, suffix: str) -> FileKind:
        if suffix in _VIDEOS:
            return SIDECAR if stem_of(path) in self._picture_stems else VIDEO
        if suffix in _DATA and (name_key(path.removesuffix(name.suffix)) in self._pictures_and_stems):
            return SIDECAR
        if known := next((kind for of_kind, kind in _BY_SUFFIX.items() if suffix in of_kind), None):
            return known
        head = self._head(path)
        if sniff(head) in FORMATS:
            return PICTURE
        if suffix and stem_of(path) in self._picture_stems and _is_text(head):
            return UNREAD_CAPTION
        return DOCUMENT if _TEXTS_ABOUT.fullmatch(name.name) else UNKNOWN

    def _head(self, path: str) -> bytes:
        if path not in self.heads:
            self.heads[path] = self.head(path)
        return self.heads[path]

    def _has_caption(self, name: PurePosixPath) -> bool:
        return name_key(str(name.with_suffix(""))) in self._caption_stems

    @cached_property
    def _picture_stems(self) -> frozenset[str]:
        return frozenset(stem_of(path) for path in self.paths if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES)

    @cached_property
    def _pictures_and_stems(self) -> frozenset[str]:
        pictures = (path for path in self.paths if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES)
        return self._picture_stems.union(name_key(path) for path in pictures)

    @cached_property
    def _caption_stems(self) -> frozenset[str]:
        return frozenset(stem_of(path) for path in self.paths if PurePosixPath(path).suffix.lower() in CAPTION_SUFFIXES)

    @cached_property
    def _stem_parts(self) -> Mapping[str, list[tuple[str, ...]]]:
        found: dict[str, list[tuple[str, ...]]] = {}
        for stem in self._picture_stems:
            parts = PurePosixPath(stem).parts
            found.setdefault(parts[-1], []).append(parts)
        return found

    @cached_property
    def _has_character_folder(self) -> bool:
        """Whether some picture lies outside of folders of regularisation pictures."""
        parts = (PurePosixPath(stem).parts[:-1] for stem in self._picture_stems)
        return any(not any(_REGULARISATION.fullmatch(part) for part in folders) for folders in parts)


_BY_SUFFIX = {
    _EDITOR: EDITOR,
    _SIDECARS: SIDECAR,
    _ARCHIVES: ARCHIVE,
    _DATA: DATA_TABLE,
    _WEIGHTS: WEIGHTS,
    _DOCUMENTS: DOCUMENT,
}


def _of_system(name: PurePosixPath, suffix: str) -> FileKind | None:
    del suffix
    last = name.name.lower()
    if last in _SYSTEM_NAMES or last.startswith(("._", "~$")):
        return SYSTEM
    if any(part.lower() in SYSTEM_FOLDERS for part in name.parts[:-1]):
        return SYSTEM
    return HIDDEN if any(part.startswith(".") for part in name.parts) else None


def _unfinished(name: PurePosixPath, suffix: str) -> FileKind | None:
    is_in_download = any(PurePosixPath(part).suffix.lower() in _DOWNLOADS for part in name.parts[:-1])
    if suffix in _DOWNLOADS or is_in_download or _UNCONFIRMED.match(name.name):
        return DOWNLOAD
    if suffix in _BACKUPS or name.name.endswith("~") or suffix.endswith("_original"):
        return BACKUP
    return None


def _of_trainer(name: PurePosixPath, suffix: str) -> FileKind | None:
    is_in_cache = any(part.lower() in _CACHE_FOLDERS for part in name.parts[:-1])
    is_cache = suffix in (".npz", ".npy") or (suffix in _WEIGHTS and (is_in_cache or _CACHE_STEM.search(name.stem)))
    return CACHE if is_cache or name.name.lower() in ("aitk_db.json", ".aitk_size.json") else None


def _is_text(head: bytes) -> bool:
    return bool(head) and not any(byte < 9 or 13 < byte < 27 for byte in head.replace(b"\0", b""))
