"""Program files: names and suffixes of what systems, browsers, editors, cameras and trainers leave among pictures."""

from __future__ import annotations

import re

from influencerai.dataset.formats import suffixes

SYSTEM_FOLDERS = frozenset(
    {"__macosx", "network trash folder", "temporaryitems", "desktop folder db"}  # macOS and its file servers
    | {"$recycle.bin", "recycler", "recycled", "system volume information", "found.000"}  # Windows
    | {"lost+found", "lost.dir"}  # Linux, Android
    | {"@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin"}  # Synology
    | {"@recycle", "@recently-snapshot", "@transcode", "@qmediaindex", "network recycle bin 1"}  # QNAP
    | {"__pycache__", "node_modules", "site-packages"}  # pictures of programs
)
SYSTEM_FOLDER_SUFFIXES = (".lrdata", ".lrcat-data", ".cocatalogdb", ".aplibrary", ".photoslibrary")
"""Previews and catalogues of Lightroom, Capture One, Aperture and Photos."""
SYSTEM_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "zbthumbnail.info"}
    | {".ds_store", "icon\r", ".localized", ".directory", ".nomedia"}
    | {"picasa.ini", ".picasa.ini", "folder.jpg.tmp", "sync.ffs_db"}
    | {"digikam4.db", "thumbnails-digikam.db", "recognition.db", "similarity.db"}
)
SYSTEM_ENDINGS = ("zone.identifier",)
"""Of the notes that Windows keeps of where a file comes from, where WSL or an archiver made files of them."""
SYSTEM_PICTURES = re.compile(r"albumart(small|_\{[0-9a-f-]+\}_(small|large))", re.IGNORECASE)
"""Windows Media Player's."""

PLACEHOLDER_SUFFIX = ".icloud"
"""Of hidden files that stand for those which only iCloud has: `.01.png.icloud`."""
DOWNLOAD_SUFFIXES = suffixes("crdownload part partial download opdownload aria2 !ut filepart !sync bts !bt td dtapart")
BACKUP_SUFFIXES = suffixes("bak bkp backup old orig original tmp temp swp swo autosave lock save")
EDITOR_SUFFIXES = suffixes(
    "psd psb xcf kra krz ora aseprite ase clip sai sai2 mdp afphoto afdesign af pxd pdn procreate ai eps "
    "ps svg svgz pdf indd cdr blend fig sketch psp pspimage"
)
SIDECAR_SUFFIXES = suffixes("xmp aae thm pp3 dop on1 arp cos cof cot vrd exif photo-edit url lnk webloc lrcat lrprev")
VIDEO_SUFFIXES = suffixes("mov mp4 m4v avi mkv webm mpg mpeg 3gp mts lrv insv wmv flv wav mp3 m4a aac ogg flac")
ARCHIVE_SUFFIXES = suffixes("zip 7z rar tar gz tgz bz2 xz zst cbz cbr")
DATA_SUFFIXES = suffixes(
    "json jsonl ndjson csv tsv psv parquet arrow feather xlsx xls ods db sqlite sqlite3 lmdb h5 tfrecord"
)
WEIGHT_SUFFIXES = suffixes("safetensors ckpt pt pth bin gguf onnx pkl")
TEXT_SUFFIXES = suffixes("md markdown rst rtf doc docx odt pages tex log nfo text")
"""Of documents with words, which beside a picture are probably its caption."""
STRUCTURED_SUFFIXES = suffixes("yaml yml toml xml ini")
DOCUMENT_SUFFIXES = (
    suffixes("cfg conf html htm css js py ipynb sh bat ps1 cmd exe dll env gitignore gitattributes sha256 md5")
    | TEXT_SUFFIXES
    | STRUCTURED_SUFFIXES
)
TABLE_SUFFIXES = suffixes("parquet arrow feather xlsx xls ods tfrecord")
"""Of tables that hold pictures or captions wherever they lie in a dataset."""
CAPTION_WORDS = frozenset(
    {"caption", "captions", "metadata", "prompt", "prompts", "tag", "tags", "texts"}
    | {"description", "descriptions", "annotation", "annotations"}
)
"""In names of tables: `captions.yaml`, `train_prompts.csv`."""
CAPTION_FIELD = re.compile(
    rb'"(caption|captions|tags|tag_string|prompt|text|description)"\s*:\s*(?!""|\[\s*\]|\{\s*\}|null|false)\S'
)
"""With a value: Google Photos and galleries write empty ones beside every picture."""

TEXTS_ABOUT = re.compile(r"(readme|licen[cs]e|notice|changelog|credits|copyright)(\..*)?", re.IGNORECASE)
UNCONFIRMED = re.compile(r"Unconfirmed \d+")
"""Chrome's downloads before they have a name."""

CACHE_STEMS = re.compile(r"_(sd|sdxl|sd3|flux|fl|te|te_outputs|hv|wan|fk|fp|latents?)(_\w+)?$", re.IGNORECASE)
CACHE_FOLDERS = frozenset({"_latent_cache", "_t_e_cache", "_clip_vision_cache", "latent_cache", "text_cache", "cache"})
CACHE_NAMES = frozenset({"aitk_db.json", ".aitk_size.json"})

SAMPLE_STEMS = re.compile(
    r"epoch-\d{4,}-\d+-.*"  # ours
    r"|(.*_)?(e\d{6}|\d{6})_\d{2}_\d{8,14}(_\d+)?"  # kohya and musubi-tuner
    r"|\d{10,}__\d{6,}_\d+"  # ai-toolkit
    r"|.*-training-sample-\d+(-\d+)*"  # OneTrainer
    r"|step_\d+_.*_\d+(x\d+)?"  # SimpleTuner
    r"|gs\d{5,}-\d+.*"  # EveryDream
    r"|media_images_.*_\d+_[0-9a-f]{16,}"  # Weights & Biases
    r"|(xyz_|xy_)?grid(-\d+)*(-.*)?|loss|samples|contact-sheet|before-after",
    re.IGNORECASE,
)
"""Of pictures that a trainer or A1111 drew about a training."""
SAMPLE_FOLDERS = frozenset({"sample", "samples", "validation", "validation_images", "training_samples"})
"""Beside weights, trainers draw into these."""
LOG_FOLDERS = re.compile(r"wandb|mlruns|tensorboard|lightning_logs|checkpoint-\d+", re.IGNORECASE)
"""The last is a state of diffusers' scripts and SimpleTuner."""
DRAWN_BY = re.compile(rb"tEXtSoftware\0(Matplotlib|InfluencerAI)")
"""Text in plots, and in grids and contact sheets of this program. Single pictures that were drawn may be trained on."""
REGULARISATION_FOLDERS = re.compile(r"reg|regs|regulari[sz]ation(_images)?|class(_images)?", re.IGNORECASE)
