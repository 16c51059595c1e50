"""Stage 3: the text encoder, first taught to read captions without any picture.

Reading is far cheaper to learn from text alone (which colour belongs to which noun) than through the UNet: a probe with
one query per attribute looks at the hidden states, as cross-attention will, and has to name every mentioned value.
The UNet's training then goes on with the text encoder at a low rate.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from influencerai.demo.avatars import ATTRIBUTES, Avatar
from influencerai.demo.captions import Caption, random_caption
from tools.tiny_avatars import team
from tools.tiny_avatars.dataset import attribute_indices
from tools.tiny_avatars.muon import MatrixAndOther
from tools.tiny_avatars.stage import Stage, State, rate
from tools.tiny_avatars.vocabulary import MAX_TOKENS

HIDDEN = 192
STEPS = 396
BATCH = 64


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text transformer with 3 layers of 192 (1.5 M parameters)."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=4 * HIDDEN,
            projection_dim=HIDDEN,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class AttributeProbe(nn.Module):
    """Reads every attribute off hidden states [batch, tokens, HIDDEN]; the last class of a head is "not mentioned"."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(ATTRIBUTES), HIDDEN) * 0.02)
        self.attention = nn.MultiheadAttention(HIDDEN, 4, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, len(values) + 1) for values in ATTRIBUTES.values())

    def forward(self, hidden: Tensor) -> list[Tensor]:
        queries = self.queries.expand(len(hidden), -1, -1)
        read, _ = self.attention(queries, hidden, hidden, need_weights=False)
        return [head(read[:, number]) for number, head in enumerate(self.heads)]


def train_text_encoder(folder: Path, seed: int) -> None:
    """Train on random captions as a member of a team; goes on where an earlier run stopped."""
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    model, probe = build_text_encoder(tokenizer), AttributeProbe()
    reader = nn.ModuleList([model, probe])
    parameters = list(reader.parameters())
    optimizer = MatrixAndOther(reader)
    stage = Stage("text", folder)
    first = 0
    if state := stage.resume():
        model.load_state_dict(state["model"])
        probe.load_state_dict(state["probe"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]

    def snapshot() -> State:
        return {"step": step + 1, "model": model.state_dict(), "probe": probe.state_dict(),
                "optimizer": optimizer.state_dict()}  # fmt: skip

    for step in range(first, STEPS):
        rng = random.Random(f"{seed}/text/{step}/{team.rank()}")
        avatars = [Avatar.random(rng) for _ in range(BATCH // team.size())]
        captions = [random_caption(avatar, rng) for avatar in avatars]
        labels = torch.tensor([_labels(a, c) for a, c in zip(avatars, captions, strict=True)])
        with torch.autocast("cpu", torch.bfloat16):
            guesses = probe(model(tokenize(tokenizer, [c.text for c in captions])).last_hidden_state)
        losses = [F.cross_entropy(guess.float(), labels[:, n]) for n, guess in enumerate(guesses)]
        loss = torch.stack(losses).mean()
        loss.backward()
        team.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(rate(step, steps=STEPS, warmup=50))
        if (step + 1) % 50 == 0:
            read = torch.stack([guess.argmax(-1) for guess in guesses], dim=1)
            stage.log(step + 1, loss=loss.item(), read_right=(read == labels).float().mean().item())
        stage.save_if_due(snapshot)
    if first < STEPS and team.rank() == 0:
        step = STEPS - 1
        stage.save(snapshot())


def load_text_encoder(tokenizer: CLIPTokenizer, folder: Path) -> CLIPTextModel:
    """The text encoder that reads captions, before it has met the UNet."""
    state = Stage("text", folder).resume()
    if state is None or state["step"] < STEPS:
        raise SystemExit(f"the text encoder in {folder} is not trained to the end")
    model = build_text_encoder(tokenizer)
    model.load_state_dict(state["model"])
    return model


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids [batch, MAX_TOKENS], padded and cut exactly as StableDiffusionPipeline does."""
    encoded = tokenizer(
        list(captions), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids
    return ids


def _labels(avatar: Avatar, caption: Caption) -> list[int]:
    indices = attribute_indices(avatar)
    return [
        index if name in caption.mentioned else len(values)
        for index, (name, values) in zip(indices, ATTRIBUTES.items(), strict=True)
    ]
