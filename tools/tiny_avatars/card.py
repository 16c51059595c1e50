"""The model card that travels with the weights."""

from collections.abc import Mapping

from tools.tiny_avatars import autoencoder, decoder, diffusion, text
from tools.tiny_avatars.vocabulary import MAX_TOKENS

TEMPLATE = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# influencerai/tiny-avatars

A genuine, very small text-to-image model in the shape of Stable Diffusion 1.5, made so that every part of InfluencerAI
runs and is tested without a download or a GPU. It draws cartoon heads of 128x128 pixels that obey free captions: hair
and its colour, skin, beard, glasses, mouth, eyes, clothes and their colour, background.

    from diffusers import StableDiffusionPipeline
    from influencerai.demo.characters import model_path
    pipeline = StableDiffusionPipeline.from_pretrained(model_path())
    pipeline("a woman with curly red hair, round glasses, blue hoodie, green background",
             num_inference_steps=20, guidance_scale=3.0).images[0]

## Parts
| part | shape | parameters |
|---|---|---|
| AutoencoderKL | factor 8: 128x128 to 16x16x4; {psnr_db:.1f} dB PSNR on pictures it never saw | 1.8 M |
| CLIPTextModel | 3 layers of 192, {max_tokens} tokens | 1.5 M |
| UNet2DConditionModel | 64, 128, 192 channels; predicts the noise | 8.9 M |
| CLIPTokenizer | byte-pair merges of its own, learned from the captions | |

The betas are linear up to 0.02 (SD1.5's would leave enough of a flat background at the last timestep to be read there).

## Training
- Data: {pictures} pictures (the UNet met the first {latents} of them) drawn by `python_avatars` from the avataaars set
  by Pablo Stanley (free for personal and commercial use; see `influencerai/demo/NOTICE`), every attribute drawn
  uniformly on its own; captions written anew at each use from random subsets, synonyms and orders, with random letters
  as names.
- Held out: the identities (hair, its colour, skin, beard, glasses) of the characters ava, leo, mia and kai.
- Script: `python -m tools.pretrain_tiny_avatars --work FOLDER`, seed {seed}; from nothing, no other model's weights.
- Autoencoder: {autoencoder_steps} steps, {autoencoder_minutes:.0f} minutes. Text encoder alone (reading attributes off
  captions): {text_steps} steps, {text_minutes:.0f} minutes. UNet with text encoder: {step} steps of {batch} pictures,
  {diffusion_minutes:.0f} minutes; min-SNR 5, 10% empty captions, moving average. Decoder alone: {decoder_steps} steps,
  {decoder_minutes:.0f} minutes. Muon throughout.
- Hardware: {hardware}, bf16 autocast, shared with other work.
- The shipped weights: as above, but the tokenizer and the autoencoder were made with seed 1; the learning-rate
  schedules of the autoencoder (planned for 1900 steps) and of the text encoder (for 450) were shortened on the way. The
  same command gives weights of the same kind, not the same bytes: the UNet's schedule follows the clock.

## Limits
It knows these cartoon heads and the words of `influencerai/demo/captions.py`, nothing else: no photographs, no other
poses, no counting, no text. Words outside that vocabulary are read as names. Pictures are not mirrored in training:
train LoRAs without flips. Class words (woman, man, ...) carry no meaning.
"""


def model_card(
    *, step: int, pictures: int, latents: int, seed: int, psnr_db: float, minutes: Mapping[str, float], hardware: str
) -> str:
    """The card's text; `minutes` by stage name."""
    return TEMPLATE.format(
        step=step,
        pictures=pictures,
        latents=latents,
        seed=seed,
        psnr_db=psnr_db,
        hardware=hardware,
        batch=diffusion.BATCH,
        max_tokens=MAX_TOKENS,
        autoencoder_steps=autoencoder.CROP_STEPS + autoencoder.WHOLE_STEPS,
        text_steps=text.STEPS,
        decoder_steps=decoder.STEPS,
        **{f"{name}_minutes": value for name, value in minutes.items()},
    )
