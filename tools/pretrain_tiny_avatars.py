"""Pretrain the embedded base model `influencerai/tiny-avatars`, on two CPU cores, from nothing.

    nice -n 5 python -m tools.pretrain_tiny_avatars --work ~/pretrain

Every stage keeps a checkpoint in the work folder; the same command again goes on from there. `--export-now` writes the
model as it is at the last checkpoint and trains nothing.
"""

import argparse
import json
import os
import platform
import random
from pathlib import Path

from influencerai.demo.avatars import Avatar
from influencerai.demo.captions import random_caption
from influencerai.demo.characters import model_path
from tools.tiny_avatars.autoencoder import encode_all, load_autoencoder, train_autoencoder
from tools.tiny_avatars.card import model_card
from tools.tiny_avatars.dataset import load_dataset
from tools.tiny_avatars.decoder import load_finished_autoencoder, train_decoder
from tools.tiny_avatars.diffusion import load_diffusion, train_diffusion
from tools.tiny_avatars.export import assemble, export, sample_grid
from tools.tiny_avatars.stage import Stage
from tools.tiny_avatars.team import run_team
from tools.tiny_avatars.text import train_text_encoder
from tools.tiny_avatars.vocabulary import train_tokenizer

LATENTS = 8000
"""The UNet learns from the first so many pictures; it meets each one only a few times."""


def main() -> None:
    """Run what is not done yet, then export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures, latents, checkpoints, log")
    parser.add_argument("--out", type=Path, default=model_path(), help="where the finished model goes")
    parser.add_argument("--pictures", type=int, default=16_000, help="how many pictures to learn from")
    parser.add_argument("--minutes", type=float, default=46, help="training time of the UNet, over all restarts")
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--export-now", action="store_true", help="export the last checkpoint, train nothing")
    arguments = parser.parse_args()
    work, seed = arguments.work, arguments.seed
    if not arguments.export_now:
        dataset = load_dataset(work, count=arguments.pictures, seed=seed)
        train_tokenizer(work / "tokenizer", seed=seed)
        run_team(train_autoencoder, work, seed)
        encode_all(load_autoencoder(work)[0], dataset.pixels[:LATENTS], work)
        run_team(train_text_encoder, work, seed)
        run_team(train_diffusion, work, seed, seed, arguments.minutes)
        run_team(train_decoder, work, seed)
    write_model(work, arguments.out, pictures=arguments.pictures, seed=seed)


def write_model(work: Path, out: Path, *, pictures: int, seed: int) -> None:
    """Export the last checkpoint of every stage, with its card, and a sheet of samples in the work folder."""
    tokenizer = train_tokenizer(work / "tokenizer", seed=seed)
    vae, psnr_db = load_finished_autoencoder(work)
    unet, text_encoder, step = load_diffusion(tokenizer, work)
    pipeline = assemble(vae, text_encoder, tokenizer, unet)
    rng = random.Random(seed)
    prompts = [random_caption(Avatar.random(rng), rng).text for _ in range(32)]
    sample_grid(pipeline, prompts).save(work / f"samples_{step:05d}.png")
    (work / f"samples_{step:05d}.json").write_text(json.dumps(prompts, indent=1))
    minutes = {name: Stage.minutes(name, work) for name in ("autoencoder", "text", "diffusion", "decoder")}
    card = model_card(
        step=step, pictures=pictures, latents=LATENTS, seed=seed, psnr_db=psnr_db, minutes=minutes,
        hardware=f"{os.cpu_count()} cores of {_processor()}",
    )  # fmt: skip
    export(pipeline, work / "tokenizer", out, card=card)
    print(f"step {step}: {out}")


def _processor() -> str:
    """The processor's name as Linux tells it, elsewhere the architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
