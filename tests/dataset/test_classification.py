"""Classification: what each file of a folder is, from its path, its neighbours and its first bytes."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from influencerai.dataset import inspect_dataset
from influencerai.dataset.classification import HEAD_BYTES, classify
from influencerai.domain.output_path import RUN_MARKER

PNG = b"\x89PNG\r\n\x1a\n"


def kinds(*paths: str, heads: dict[str, bytes] | None = None) -> dict[str, str]:
    found = classify(paths, head=lambda path: (heads or {}).get(path, b""))
    return {path: kind.name for path, kind in found.items()}


def picture(text: dict[str, str] | None = None) -> bytes:
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG", pnginfo=info)
    return data.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        *("01.png", "IMG_0001.JPG", "x.webp", "mask.png", "girl_mask.png", "sub/depth.jpg", "mask_ball_01.png"),
        *("pose3.png", "girl with mask.jpg", "normal day.png", "thumbs up.png", "backup singer.jpg", "pose/3.png"),
        *("masks/carnival.png", "samples/face.png", "original.png", "sketch_02.png", "alpha centauri.gif"),
        *("other_2.png", "other_edit.png", "other (1).png", "other - Copy.png", "10_mask/face.png"),
        *("ComfyUI_00001_.png", "00001-42.png", "clip.tif", "scan.dib", "backup/02.png", "mask other.png"),
    ],
)
def test_pictures_are_pictures(name: str) -> None:
    assert kinds(name, "other.png") == {name: "picture", "other.png": "picture"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("01-masklabel.png", "mask"),
        ("01_mask.png", "mask"),
        ("01.mask.webp", "mask"),
        ("mask_01.png", "mask"),
        ("masks/01.png", "mask"),
        ("Mask/01.jpg", "mask"),
        ("01-condlabel.png", "control image"),
        ("01_openpose.png", "control image"),
        ("01 depth.jpg", "control image"),
        ("control/01.png", "control image"),
        ("conditioning_images/01.png", "control image"),
        ("01_depth_map.png", "control image"),
        ("01_pose.png", "control image"),
        ("01_normal.png", "control image"),
        ("01_dw_openpose_full.webp", "control image"),
        ("01-lineart_anime-2.png", "control image"),
        ("01_alpha.png", "mask"),
        ("01-mask-1.png", "mask"),
        ("01_mask_0.png", "mask"),
        ("01Mask.png", "mask"),
        ("01_face_mask.png", "mask"),
        ("01_inpaint_mask.png", "mask"),
        ("checkpoint-500/sample_0.png", "sample, grid or plot"),
        ("01.png.mask.png", "mask"),
        ("01.mask", "mask"),
        ("01.depth", "control image"),
        ("masks/01_mask.png", "mask"),
        ("train_masks/01.png", "mask"),
        ("pose/01.png", "control image"),
        ("conditioning_data/01.png", "control image"),
        ("conditioning_data/other.png", "control image"),
        ("depth_maps/other.png", "control image"),
        ("detected_maps/canny/other.png", "control image"),
        ("01-mask-composite.png", "mask"),
        ("01-before-highres-fix.png", "backup or temporary file"),
        ("01-init-image.png", "backup or temporary file"),
        (".02.png.icloud", "unfinished download"),
        ("01.png:Zone.Identifier", "system file"),
        ("01.png.supplemental-metadata.json", "sidecar"),
        ("list.txt", "table of captions that is not read"),
        ("clipspace/other.png", "mask"),
        ("clipspace-mask-1656145.9.png", "mask"),
        ("thumbs/01.jpg", "thumbnail"),
        ("thumbnails/other.png", "thumbnail"),
        ("previews/01.png", "thumbnail"),
        ("01_thumb.png", "thumbnail"),
        ("tn_01.jpg", "thumbnail"),
        ("01-300x200.jpg", "thumbnail"),
        ("01+512x512.png", "thumbnail"),
        ("#01.png#", "backup or temporary file"),
        ("01.png.1", "backup or temporary file"),
        ("01.png.save", "backup or temporary file"),
        ("01.png.bak.png", "backup or temporary file"),
        ("01.old.png", "backup or temporary file"),
        ("01_original.png", "backup or temporary file"),
        ("originals/01.png", "backup or temporary file"),
        ("01 (conflicted copy).png", "backup or temporary file"),
        ("01 (Ann's conflicted copy 2026-01-31).png", "backup or temporary file"),
        ("01 (conflicted copy 2026-01-31 101112).txt", "backup or temporary file"),
        ("01.sync-conflict-20260131-101112-ABCDEFG.png", "backup or temporary file"),
        ("01.Conflict.png", "backup or temporary file"),
        ("01 (SFConflict ann@example.org 2026-01-31-10-11-12).png", "backup or temporary file"),
        ("01_Andy-PC_Jan-03-0901-2026_CaseConflict_1.png", "backup or temporary file"),
        ("@Recycle/01.png", "system file"),
        ("@eaDir/01.png/SYNOPHOTO_THUMB_XL.jpg", "system file"),
        ("Previews.lrdata/ab/01.png", "system file"),
        ("AlbumArtSmall.jpg", "system file"),
        ("captions.yaml", "table of captions that is not read"),
        ("prompts.md", "table of captions that is not read"),
        ("data/train-00000-of-00001.parquet", "table of captions that is not read"),
        ("tags.xlsx", "table of captions that is not read"),
        ("01.md", "text of a picture's name"),
        ("01.rtf", "text of a picture's name"),
        ("01.png.crdownload", "unfinished download"),
        ("01.jpg.part", "unfinished download"),
        ("02.jpg.download/02.jpg", "unfinished download"),
        ("Unconfirmed 1234.crdownload", "unfinished download"),
        ("01.png~", "backup or temporary file"),
        ("01.png.bak", "backup or temporary file"),
        ("01.jpg_original", "backup or temporary file"),
        ("01.psd", "file of an editor"),
        ("01.kra", "file of an editor"),
        ("a.aseprite", "file of an editor"),
        ("card.pdf", "file of an editor"),
        ("01_0512x0512_sd.npz", "cache file"),
        ("01_te.npz", "cache file"),
        ("01_0512x0768_sdxl.safetensors", "cache file"),
        ("_latent_cache/01_abc.safetensors", "cache file"),
        ("character.safetensors", "file of weights"),
        ("Thumbs.db", "system file"),
        ("desktop.ini", "system file"),
        ("__MACOSX/01.png", "system file"),
        ("._01.png", "system file"),
        (".DS_Store", "system file"),
        (".trash/01.png", "hidden file"),
        ("01.xmp", "sidecar"),
        ("01.aae", "sidecar"),
        ("01.mov", "sidecar"),
        ("01.png.json", "sidecar"),
        ("01.dng", "camera RAW"),
        ("clip.mov", "video or sound"),
        ("more.zip", "archive"),
        ("dataset.sqlite", "data file"),
        ("train.csv", "data file"),
        ("dataset.toml", "document or configuration"),
        ("README.txt", "document or configuration"),
        ("01.prompt", "text of a picture's name"),
        ("me_e000010_00_20240131120000_42.png", "sample, grid or plot"),
        ("sample/me_000500_01_20240131120000.png", "sample, grid or plot"),
        ("1700000000000__000000500_0.jpg", "sample, grid or plot"),
        ("0 - ohwx/2026-01-31_10-11-12-training-sample-100-0-0.png", "sample, grid or plot"),
        ("step_500_ohwx_1024x1024.png", "sample, grid or plot"),
        ("wandb/run-1/files/media/images/x.png", "sample, grid or plot"),
        ("samples/epoch-0001-0-ohwx.png", "sample, grid or plot"),
        ("grid-0001.png", "sample, grid or plot"),
        ("xyz_grid-0001-42.png", "sample, grid or plot"),
    ],
)
def test_leftovers_beside_a_picture_are_told_apart(name: str, kind: str) -> None:
    texts = {".prompt": b"smiling", ".txt": b"01.png: smiling", ".json": b'{"title": "01.png", "description": ""}'}
    heads = {name: texts.get(Path(name).suffix, PNG)}
    assert kinds("01.png", "01.txt", name, heads=heads)[name] == kind


@pytest.mark.parametrize(
    "name",
    [
        *("01_mask.png", "masks/01.png", "grid.png", "me_e000010_00_20240131120000_42.png"),
        *("01_pose.png", "thumbs/01.png", "01_original.png", "01-300x200.png"),
    ],
)
def test_a_caption_of_its_own_makes_a_picture_of_it(name: str) -> None:
    assert kinds("01.png", name, name.replace(".png", ".txt"))[name] == "picture"


def test_captions_and_tables_are_used() -> None:
    captions = {f"01{suffix}": "caption" for suffix in (".txt", ".TXT", ".caption", ".tags")}
    names = ("metadata.jsonl", "metadata.csv", "captions.json", "captions.csv", "meta_cap.json", "sub/meta_lat.json")
    tables = dict.fromkeys(names, "table of captions")
    assert kinds(*captions, *tables) == captions | tables


def test_a_grey_picture_that_is_only_called_mask_is_one() -> None:
    heads = {}
    for name, mode in (("mask.png", "L"), ("mask_2.png", "1"), ("masks.png", "RGB")):
        Image.new(mode, (8, 8)).save(data := io.BytesIO(), "PNG")
        heads[name] = data.getvalue()[:HEAD_BYTES]
    found = kinds("01.png", *heads, heads=heads)
    assert found == {"01.png": "picture", "mask.png": "mask", "mask_2.png": "mask", "masks.png": "picture"}


def test_a_folder_that_is_named_like_one_of_companions_counts_by_its_partners() -> None:
    paths = ("img/01.png", "img/02.png", "pose/01.png", "pose/02_pose.png", "pose/extra.png")
    assert {path for path, kind in kinds(*paths).items() if kind == "control image"} == set(paths[2:])
    alone = ("img/01.png", "img/02.png", "pose/01.png", "pose/a.png", "pose/b.png")
    assert {path for path, kind in kinds(*alone).items() if kind == "control image"} == {"pose/01.png"}
    assert kinds("openpose/01.png", "openpose/02.png")["openpose/01.png"] == "picture"


def test_a_picture_and_its_masks_may_have_a_folder_of_their_own() -> None:
    paths = ("01/image.png", "01/mask.png", "01/depth_map.png", "02/image.png", "02/mask.png")
    assert [path for path, kind in kinds(*paths).items() if kind == "picture"] == ["01/image.png", "02/image.png"]
    beside = ("ava/01.png", "ava/02.png", "ava_masks/01.png", "ava_depth/02.png", "ava_red/01.png")
    found = kinds(*beside)
    assert [found[path] for path in beside[2:]] == ["mask", "control image", "picture"]


@pytest.mark.parametrize(
    "paths",
    [
        [f"{'a_' * 100}{number}.png" for number in range(1000)],
        ["/".join(f"mask{depth}" for depth in range(15)) + f"/{number}.png" for number in range(1000)],
        [f"mask{number}/{number}_conflict.png" for number in range(1000)],
    ],
    ids=["words", "folders in folders", "folders"],
)
def test_hostile_names_cost_no_more_than_others(paths: list[str]) -> None:
    before = time.process_time()
    classify(["1.png", *paths], head=lambda _: b"")
    assert time.process_time() - before < 3


def test_beside_weights_a_folder_of_samples_is_a_trainers() -> None:
    assert kinds("a.png", "out/me.safetensors", "out/sample/x.png")["out/sample/x.png"] == "sample, grid or plot"
    assert kinds("a.png", "sample/x.png")["sample/x.png"] == "picture"


def test_a_list_of_pictures_is_a_table_of_captions_whatever_its_name() -> None:
    heads = {"all.yaml": b"01.png: smiling\n", "all.csv": b"01.png;smiling\n", "config.yaml": b"epochs: 3\n"}
    found = kinds("sub/01.png", *heads, heads=heads)
    unread = "table of captions that is not read"
    assert [found[name] for name in heads] == [unread, unread, "document or configuration"]


def test_plots_and_our_own_sheets_say_so_in_their_bytes() -> None:
    heads = {
        "plot.png": picture({"Software": "Matplotlib version3.10"})[:HEAD_BYTES],
        "sheet.png": picture({"Software": "InfluencerAI"})[:HEAD_BYTES],
        "drawn.png": picture({"parameters": "a woman"})[:HEAD_BYTES],
    }
    found = kinds(*heads, heads=heads)
    assert found == {"plot.png": "sample, grid or plot", "sheet.png": "sample, grid or plot", "drawn.png": "picture"}


def test_regularisation_pictures_are_not_the_characters() -> None:
    assert kinds("img/10_ohwx/a.png", "reg/1_woman/b.png")["reg/1_woman/b.png"] == "regularisation picture"
    assert kinds("a.png", "reg/b.png")["reg/b.png"] == "regularisation picture"
    assert kinds("reg/1_woman/b.png") == {"reg/1_woman/b.png": "picture"}


def test_an_output_folder_below_the_dataset_is_the_runs() -> None:
    paths = (
        "a.png",
        f"out/{RUN_MARKER}",
        "out/me-final.safetensors",
        "out/samples/x.png",
        "out/loss.png",
        "outer/b.png",
    )
    found = kinds(*paths)
    assert [path for path, kind in found.items() if kind == "picture"] == ["a.png", "outer/b.png"]
    assert {kind for path, kind in found.items() if path.startswith("out/")} == {"file of a run"}


def test_of_a_dataset_that_is_an_output_folder_only_what_runs_write_is_left_out() -> None:
    paths = (
        RUN_MARKER,
        "a.png",
        "a.txt",
        "sub/b.png",
        "samples/epoch-0001-0-x.png",
        "loss.png",
        "me-final.safetensors",
    )
    found = kinds(*paths)
    assert [path for path, kind in found.items() if kind == "picture"] == ["a.png", "sub/b.png"]
    assert found["samples/epoch-0001-0-x.png"] == found["loss.png"] == "file of a run"


def test_a_folder_with_everything_trains_on_the_pictures_and_says_the_rest_in_few_sentences(tmp_path: Path) -> None:
    for index in range(6):
        Image.effect_noise((64, 64), 60 + index).convert("RGB").save(tmp_path / f"{index:02}.png")
        (tmp_path / f"{index:02}.txt").write_text("ohwx")
        Image.new("L", (32, 32)).save(tmp_path / f"{index:02}-masklabel.png")
        (tmp_path / f"{index:02}_0512x0512_sd.npz").write_bytes(b"PK")
    for name in ("x.jpg.crdownload", "Thumbs.db", "notes.md"):
        (tmp_path / name).write_bytes(picture())
    report = inspect_dataset(tmp_path, trigger_word="ohwx")
    assert [image.path for image in report.images] == [f"{index:02}.png" for index in range(6)]
    masks, download = report.warnings
    assert masks.startswith("6 masks left out: 00-masklabel.png, 01-masklabel.png, 02-masklabel.png and 3 more. Masks ")
    assert download.startswith("1 unfinished download left out: x.jpg.crdownload. A browser or sync program ")
    (note,) = (note for note in report.notes if note.startswith("Not part of the dataset"))
    assert "6 cache files (00_0512x0512_sd.npz, " in note
    assert {group.kind: group.count for group in report.left_out} == {
        "cache file": 6,
        "document or configuration": 1,
        "mask": 6,
        "system file": 1,
        "unfinished download": 1,
    }
    assert report.summary == (masks, download)


def test_a_folder_of_nothing_but_leftovers_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.psd").write_bytes(b"8BPS")
    (error,) = inspect_dataset(tmp_path).errors
    assert error.startswith("It holds no images.")
    assert "1 file of an editor" in error
    assert "Convert them to PNG, JPEG or WebP." in error
