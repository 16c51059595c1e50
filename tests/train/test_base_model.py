"""Finding a base model, checking that it is whole, fingerprints, and loading from a diffusers folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import nn

from influencerai.errors import ModelError
from influencerai.train import model_search
from influencerai.train.base_model import find_base_model
from influencerai.train.family import load_family
from influencerai.train.model_search import ALIASES
from tests.small_models import small_sd15, small_sdxl

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("sd15") / "model")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sdxl(tmp_path_factory.mktemp("sdxl") / "model")


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache of the test's own: the user's may hold any model."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def copy(sd15: Path, tmp_path: Path) -> Path:
    """A copy of the small SD1.5 to damage."""
    return Path(shutil.copytree(sd15, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("sd15", "sd15"),
        ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("sd15", "runwayml/stable-diffusion-v1-5"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("Lykon/dreamshaper-8", "Lykon/dreamshaper-8"),
        ("dreamshaper", "dreamshaper"),
    ],
)
def test_names_in_a_models_folder(name: str, place: str, sd15: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    models = tmp_path / "models"
    (models / place).parent.mkdir(parents=True)
    (models / place).symlink_to(sd15)
    base = find_base_model(name, models_dirs=[tmp_path / "missing", tmp_path / "empty", models])
    assert (base.path, base.name, base.layout, base.family) == (models / place, name, "diffusers", "sd15")
    assert (base.prediction_type, base.zero_terminal_snr) == ("epsilon", False)


def test_single_file_names_of_aliases(tmp_path: Path) -> None:
    for alias, name in (("sd15", "v1-5-pruned-emaonly"), ("sdxl", "sd_xl_base_1.0"), ("org/name", "org/name")):
        file = tmp_path / alias / f"{name}.safetensors"
        file.parent.mkdir(parents=True)
        save_file({"something": torch.zeros(1)}, file)
        with pytest.raises(ModelError, match="no known family") as caught:
            find_base_model(alias, models_dirs=[tmp_path / alias])
        assert str(file) in caught.value.message


def test_paths(sd15: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(sd15.parent))
    monkeypatch.chdir(sd15.parent)
    for name in (str(sd15), "model", "./model", "~/model"):
        assert find_base_model(name, models_dirs=[]).path.resolve() == sd15


@pytest.mark.parametrize("name", ["sdxl", "Nobody/has-this", "nothing", "a" * 255, "~nobody/x", "/no\0where"])
def test_not_found_says_where_it_looked(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_base_model(name, models_dirs=[tmp_path / "models"])
    assert f"no base model '{name}'" in caught.value.message
    assert str(tmp_path / "models") in str(caught.value)
    assert caught.value.remedy
    for place in ALIASES[name].places if name in ALIASES else ():
        assert str(tmp_path / "models" / place) in caught.value.message


def test_pickles_are_refused_unopened(tmp_path: Path) -> None:
    fuse = tmp_path / "opened"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(fuse),)

    (tmp_path / "dreamshaper.ckpt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"state_dict": Bomb()}, tmp_path / "disguised.safetensors")
    torch.save(Bomb(), tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("dreamshaper", "dreamshaper.ckpt", "disguised", str(tmp_path / "old.safetensors")):
        with pytest.raises(ModelError, match="is a pickle") as caught:
            find_base_model(name, models_dirs=[tmp_path])
        assert "convert" in str(caught.value.remedy)
    assert not fuse.exists()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 7\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>Log in</html>", "web page"),
        (b"GGUF\x03\0\0\0" + b"\0" * 64, "GGUF"),
        (b"\xff" * 64, "no safetensors file"),
    ],
)
def test_other_formats_are_named(data: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=what) as caught:
        find_base_model("model", models_dirs=[tmp_path])
    assert caught.value.remedy


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "tokenizer"])
def test_missing_component(component: str, copy: Path) -> None:
    shutil.rmtree(copy / component)
    with pytest.raises(ModelError, match=f"lacks its {component}"):
        find_base_model(str(copy), models_dirs=[])


@pytest.mark.parametrize("missing", [UNET, "unet/config.json", "scheduler/scheduler_config.json"])
def test_missing_file(missing: str, copy: Path) -> None:
    (copy / missing).unlink()
    with pytest.raises(ModelError) as caught:
        find_base_model(str(copy), models_dirs=[])
    assert missing.rpartition("/")[2] in caught.value.message


def test_missing_vocabulary(copy: Path) -> None:
    for file in (copy / "tokenizer").iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()
    with pytest.raises(ModelError, match=r"tokenizer holds no vocab\.json"):
        find_base_model(str(copy), models_dirs=[])


def test_truncated_weights(copy: Path) -> None:
    with (copy / UNET).open("r+b") as file:
        file.truncate((copy / UNET).stat().st_size - 1)
    with pytest.raises(ModelError, match="truncated") as caught:
        find_base_model(str(copy), models_dirs=[])
    assert str(copy / UNET) in caught.value.message


def test_pickled_weights_in_a_folder(copy: Path) -> None:
    (copy / UNET).rename(copy / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickles only \(diffusion_pytorch_model\.bin\)"):
        find_base_model(str(copy), models_dirs=[])


@pytest.mark.parametrize(
    ("file", "changes", "text"),
    [
        ("model_index.json", {"_class_name": "FluxPipeline"}, "is a FluxPipeline"),
        ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "Inpaint"),
        ("model_index.json", {"text_encoder": ["transformers", "ChineseCLIPModel"]}, "ChineseCLIPModel"),
        ("model_index.json", {"text_encoder": [None, None]}, "refiner"),
        ("unet/config.json", {"cross_attention_dim": 1024}, "Stable Diffusion 2"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "'sample'"),
    ],
)
def test_unsupported_folders(file: str, changes: dict[str, object], text: str, copy: Path) -> None:
    _edit(copy / file, **changes)
    with pytest.raises(ModelError, match=text) as caught:
        find_base_model(str(copy), models_dirs=[])
    assert caught.value.remedy


def test_damaged_json(copy: Path) -> None:
    (copy / "model_index.json").write_text('{"_class_name": ')
    with pytest.raises(ModelError, match=r"model_index\.json cannot be read"):
        find_base_model(str(copy), models_dirs=[])
    (copy / "model_index.json").write_text("[]")
    with pytest.raises(ModelError, match="no JSON object"):
        find_base_model(str(copy), models_dirs=[])


def test_deep_json(copy: Path) -> None:
    (copy / "unet/config.json").write_text('{"a":' * 100_000)
    with pytest.raises(ModelError, match=r"unet/config\.json cannot be read"):
        find_base_model(str(copy), models_dirs=[])


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("model_index.json", {"unet": 3}),
        ("unet/config.json", {"block_out_channels": 3}),
        ("unet/config.json", {"sample_size": "x"}),
        ("unet/config.json", {"down_block_types": ["os.system"] * 2}),
        ("vae/config.json", {"block_out_channels": None}),
        ("vae/config.json", {"scaling_factor": "x"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "x"}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": "x"}),
    ],
)
def test_a_damaged_configuration_is_named(file: str, changes: dict[str, object], copy: Path) -> None:
    _edit(copy / file, **changes)
    with pytest.raises(ModelError) as caught:
        _use(copy)
    assert str(copy) in caught.value.message
    assert (changes.keys() & {"unet"} or {file.split("/")[0]}).pop() in caught.value.message


def test_a_damaged_tokenizer_is_named(copy: Path) -> None:
    for path in (copy / "tokenizer").iterdir():
        path.write_text("garbage")
    with pytest.raises(ModelError, match=r"copy/tokenizer cannot be used"):
        find_base_model(str(copy), models_dirs=[]).load("tokenizer")


def test_what_is_no_file_of_a_tokenizer_is_left_out(copy: Path, sd15: Path) -> None:
    (copy / "tokenizer/.cache").mkdir()
    (copy / "tokenizer/gone").symlink_to(copy / "nowhere")
    base, original = (find_base_model(str(folder), models_dirs=[]) for folder in (copy, sd15))
    assert base.fingerprint() == original.fingerprint()
    os.mkfifo(copy / "tokenizer/pipe")
    with pytest.raises(ModelError, match="tokenizer/pipe is no regular file"):
        find_base_model(str(copy), models_dirs=[])


def test_an_adapter_among_the_weights_is_refused(copy: Path) -> None:
    base = find_base_model(str(copy), models_dirs=[])
    (copy / "text_encoder/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    for read in (
        base.fingerprint,
        lambda: base.load("text_encoder"),
        lambda: _use(copy),
    ):
        with pytest.raises(ModelError, match=r"text_encoder/adapter_config\.json would replace"):
            read()


@pytest.mark.parametrize(
    "weight_map", [None, 3, [], {}, {"a": 3}, {"a": "../../x.safetensors"}, {"a": "/x.safetensors"}]
)
def test_an_index_names_files_beside_it(weight_map: object, copy: Path) -> None:
    (copy / UNET).unlink()
    (copy / f"{UNET}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=r"index\.json is damaged: its weight_map"):
        find_base_model(str(copy), models_dirs=[])


@pytest.mark.parametrize("name", ["a/b--c", "a/b..c", "a/x.git", "a/" + "b" * 120])
def test_names_that_the_hub_has_not(name: str) -> None:
    assert model_search.hub_id_of(name) is None


def test_the_error_lists_a_path_a_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_base_model("absent.safetensors", models_dirs=[tmp_path])
    lines = caught.value.message.splitlines()
    assert lines[1:] == [f"  {tmp_path}/absent.safetensors", "  absent.safetensors"]
    for known in ("sd15", "sdxl", "influencerai/tiny-avatars"):
        assert known in str(caught.value.remedy)


def test_a_strangers_name_leads_nowhere_else(sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (models := tmp_path / "models").mkdir()
    (models / "org").mkdir()
    (models / "org/name").symlink_to(sd15)
    (models / "plain").symlink_to(sd15)
    monkeypatch.chdir(sd15.parent)
    for name in ("org/name", "plain"):
        assert find_base_model(name, models_dirs=[models], as_path=False).path == models / name
    for name in (str(sd15), sd15.name, f"../{sd15.parent.name}/{sd15.name}", "..", "~", f"./{sd15.name}"):
        with pytest.raises(ModelError, match="no base model"):
            find_base_model(name, models_dirs=[models], as_path=False)


def test_a_hub_out_of_reach_is_asked_once(online: None) -> None:
    with _hub(Path()) as endpoint:
        pass
    before = time.monotonic()
    with pytest.raises(ModelError, match="org/name could not be downloaded"):
        model_search.download("org/name", models_dirs=[], endpoint=endpoint)
    assert time.monotonic() - before < 5


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"lacks model_index\.json"):
        find_base_model(str(tmp_path), models_dirs=[])
    (tmp_path / "real-model.safetensors").touch()
    with pytest.raises(ModelError, match=r"give that: .*real-model\.safetensors"):
        find_base_model(str(tmp_path), models_dirs=[])
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    with pytest.raises(ModelError, match="is a LoRA"):
        find_base_model(str(tmp_path), models_dirs=[])


def test_noise_schedule_of_a_folder(copy: Path) -> None:
    _edit(copy / "scheduler/scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    base = find_base_model(str(copy), models_dirs=[])
    assert (base.prediction_type, base.zero_terminal_snr) == ("v_prediction", True)


def test_load(sdxl: Path) -> None:
    base = find_base_model(str(sdxl), models_dirs=[])
    unet = base.load("unet", dtype=torch.bfloat16)
    assert not unet.training
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.bfloat16}
    saved = load_file(sdxl / UNET)
    for name, tensor in base.load("unet").state_dict().items():
        assert torch.equal(tensor, saved[name])
    assert base.load("tokenizer_2").pad_token == "!"
    assert base.config("unet")["projection_class_embeddings_input_dim"] == 96
    assert base.pipeline_config["_class_name"] == "StableDiffusionXLPipeline"
    with pytest.raises(ModelError, match="has no text_encoder_3"):
        base.load("text_encoder_3")


@pytest.mark.parametrize(("component", "file"), [("vae", "diffusion_pytorch_model"), ("text_encoder", "model")])
def test_a_missing_tensor_is_no_random_tensor(component: str, file: str, copy: Path) -> None:
    """Both libraries would fill it in and only log a warning."""
    path = copy / component / f"{file}.safetensors"
    tensors = load_file(path)
    dropped = next(name for name in tensors if "weight" in name)
    del tensors[dropped]
    save_file(tensors, path, {"format": "pt"})
    base = find_base_model(str(copy), models_dirs=[])
    with pytest.raises(ModelError, match="1 tensors are missing"):
        base.load(component)


def test_half_precision_variant(copy: Path, sd15: Path) -> None:
    StableDiffusionPipeline.from_pretrained(sd15, safety_checker=None).to(torch.float16).save_pretrained(
        half := copy.parent / "half", variant="fp16"
    )
    assert (half / "unet/diffusion_pytorch_model.fp16.safetensors").is_file()
    base = find_base_model(str(half), models_dirs=[])
    expected = find_base_model(str(sd15), models_dirs=[])
    for component in ("unet", "vae", "text_encoder"):
        _assert_equal(base.load(component), expected.load(component).half().float())
        assert base.fingerprint(component) != expected.fingerprint(component)
    plain = load_file(sd15 / UNET)
    save_file({name: tensor + 1 for name, tensor in plain.items()}, half / UNET, {"format": "pt"})
    assert torch.equal(base.load("unet").conv_in.weight, plain["conv_in.weight"] + 1)


def test_sharded_weights(copy: Path, sd15: Path) -> None:
    base = find_base_model(str(copy), models_dirs=[])
    unet = base.load("unet")
    (copy / UNET).unlink()
    unet.save_pretrained(copy / "unet", max_shard_size="200KB")
    shards = sorted((copy / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 2
    _assert_equal(find_base_model(str(copy), models_dirs=[]).load("unet"), unet)
    before = base.fingerprint("unet")
    with shards[-1].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert base.fingerprint("unet") != before
    shards[-1].unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        find_base_model(str(copy), models_dirs=[])


def test_fingerprints_follow_the_content(copy: Path, sd15: Path) -> None:
    base, original = (find_base_model(str(path), models_dirs=[]) for path in (copy, sd15))
    components = ("unet", "vae", "text_encoder", "tokenizer")
    before = {name: base.fingerprint(name) for name in components}
    assert before == {name: original.fingerprint(name) for name in components}
    assert base.fingerprint() == original.fingerprint()
    assert len(set(before.values())) == 4

    tensors = load_file(copy / "vae/diffusion_pytorch_model.safetensors")
    tensors["encoder.conv_in.bias"][0] += 1
    save_file(tensors, copy / "vae/diffusion_pytorch_model.safetensors", {"format": "pt"})
    _edit(copy / "tokenizer/tokenizer_config.json", model_max_length=32)
    after = {name: base.fingerprint(name) for name in components}
    changed = {name for name in components if after[name] != before[name]}
    assert changed == {"vae", "text_encoder", "tokenizer"}
    assert base.fingerprint() != original.fingerprint()


def test_the_hub_cache(sd15: Path, hub_cache: Path, tmp_path: Path) -> None:
    snapshot = hub_cache / "models--org--name/snapshots" / ("0" * 40)
    shutil.copytree(sd15, snapshot)
    (refs := hub_cache / "models--org--name/refs").mkdir()
    (refs / "main").write_text("0" * 40)
    assert find_base_model("org/name", models_dirs=[tmp_path]).path == snapshot
    with pytest.raises(ModelError, match=r"the Hugging Face cache \(org/other\)"):
        find_base_model("org/other", models_dirs=[tmp_path])
    shutil.rmtree(snapshot / "vae")
    with pytest.raises(ModelError, match="lacks its vae"):
        find_base_model("org/name", models_dirs=[tmp_path])


def test_what_is_downloaded() -> None:
    """Of stable-diffusion-xl-base-1.0's 77 GB, the 14 GB that are used."""
    both = ["model.safetensors", "model.fp16.safetensors", "flax_model.msgpack", "model.onnx", "config.json"]
    files = [f"{folder}/{name}" for folder in ("text_encoder", "text_encoder_2") for name in both]
    files += ["sd_xl_base_1.0.safetensors", "README.md", "comfy/unet/config.json", "model_index.json"]
    files += ["tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"]
    files += ["scheduler/scheduler_config.json", "unet/config.json", "vae_1_0/config.json"]
    files += [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    files += ["unet/diffusion_pytorch_model.safetensors.index.json", UNET.replace(".safe", ".fp16.safe")]
    files += ["vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"]
    files += ["unet/diffusion_pytorch_model.non_ema.safetensors", "unet/diffusion_pytorch_model.bin"]
    assert set(model_search.needed_files(files)) == {
        "model_index.json",
        *(f"{folder}/{name}" for folder in ("text_encoder", "text_encoder_2") for name in (both[0], both[4])),
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        *(f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)),
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }


def test_download(sd15: Path, tmp_path: Path, online: None) -> None:
    (served := tmp_path / "served").mkdir()
    shutil.copytree(sd15, served / "org/name")
    (served / "org/name/unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (served / "org/name/huge.safetensors").write_bytes(b"not needed")
    (served / "org/single").mkdir()
    (served / "org/single/one.safetensors").write_bytes(b"single")
    with _hub(served) as endpoint:
        folder = model_search.download("org/name", models_dirs=[], endpoint=endpoint)
        with pytest.raises(ModelError, match=r"no model_index\.json.*one\.safetensors"):
            model_search.download("org/single", models_dirs=[], endpoint=endpoint)
        with pytest.raises(ModelError, match="org/none could not be downloaded"):
            model_search.download("org/none", models_dirs=[], endpoint=endpoint)
    assert find_base_model("org/name", models_dirs=[]).path == folder
    fetched = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert fetched == {str(path.relative_to(sd15)) for path in sd15.rglob("*") if path.is_file()}
    downloaded = find_base_model(str(folder), models_dirs=[])
    assert downloaded.fingerprint() == find_base_model(str(sd15), models_dirs=[]).fingerprint()


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"org/name could not be downloaded: .*ffline") as caught:
        find_base_model("org/name", models_dirs=[tmp_path / "models"], allow_download=True)
    assert str(tmp_path / "models/org/name") in str(caught.value.remedy)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever HF_HUB_OFFLINE says; the only hub that the tests ask is on this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@contextlib.contextmanager
def _hub(root: Path) -> Iterator[str]:
    """The address of a hub on the loopback interface that serves the folders `<root>/<org>/<name>`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_HubHandler, root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _HubHandler(BaseHTTPRequestHandler):
    commit = "1" * 40

    def __init__(self, root: Path, *args: Any) -> None:
        self.root = root
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if not path.startswith("api/models/"):
            org, name, _, _, file = path.split("/", 4)
            data = (self.root / org / name / file).read_bytes()
            tag = hashlib.sha256(data).hexdigest()
            self._send(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": self.commit})
            return
        name = "/".join(path.split("/")[2:4])
        folder = self.root / name
        if not folder.is_dir():
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in path:
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            tree = [
                {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": "0"}
                for path in files
            ]
            self._send(200, json.dumps(tree).encode(), {})
        else:
            self._send(200, json.dumps({"id": name, "sha": self.commit, "siblings": []}).encode(), {})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Silent."""


def _use(folder: Path) -> None:
    base = find_base_model(str(folder), models_dirs=[])
    family = load_family(base.family)
    family.sampling_scheduler(base)
    family.empty_denoiser(base)
    base.load("tokenizer")


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _assert_equal(ours: nn.Module, theirs: nn.Module) -> None:
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
