"""The complete workflow script of the API's reference, by bash, curl and jq, with a small model of SDXL's shape."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline

from influencerai.files.safetensors_file import read_safetensors_header
from tests.contract.reference import as_sent, example
from tests.servers import Server, serve_on_contract_port
from tests.small_models import small_sdxl
from tests.training_runs import write_dataset

SCRIPT = example("Complete Workflow Example", "Putting it all together").body
MODEL = "models/stabilityai/stable-diffusion-xl-base-1.0"
CHANNELS = (8, 8, 8, 8, 16, 16)
"""Of a VAE that shrinks by 32: at 1024 pixels the UNet sees 32 x 32, which a CPU trains in seconds."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("jq") is None, reason="the script needs jq"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The API and one worker, with all that the script names in its root."""
    root = tmp_path_factory.mktemp("workflow")
    write_dataset(root / "data" / "datasets" / "my-influencer", count=4)
    write_model(root / MODEL)
    with serve_on_contract_port(root, runner="inline") as running:
        yield running


def write_model(folder: Path) -> None:
    small_sdxl(folder)
    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * len(CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(CHANNELS),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=1024,
        scaling_factor=0.13025,
    )
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae")


def test_the_script_ends_with_a_lora_that_loads(server: Server) -> None:
    script = as_sent(SCRIPT, server, {})
    environment = {**os.environ, "NO_PROXY": "localhost"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=800, check=False
    )
    told = f"{done.stdout}\n{done.stderr}\n{server.log_tail()}"
    assert done.returncode == 0, told
    lines = done.stdout.splitlines()
    said = ["Dataset created: ", "Config created: ", "Job submitted: ", "Job status: "]
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=False)), told
    assert lines[-2:] == ["Training completed!", f"LoRA saved to: {lines[-1].removeprefix('LoRA saved to: ')}"], told

    path = server.root / lines[-1].removeprefix("LoRA saved to: ")
    assert path.name == "auto-generated-sdxl-config-final.safetensors"
    metadata, tensors = read_safetensors_header(path)
    assert metadata["ss_num_epochs"] == "20"
    assert len(tensors) > 100
    pipeline = StableDiffusionXLPipeline.from_pretrained(server.root / MODEL)
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    assert pipeline.get_active_adapters()
