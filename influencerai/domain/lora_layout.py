"""Layouts of LoRA files, and the programs that read each."""

from __future__ import annotations

from typing import Literal

Layout = Literal["kohya", "diffusers"]

READERS: dict[Layout, str] = {
    "kohya": "ComfyUI, AUTOMATIC1111, Forge, InvokeAI, sd-scripts and diffusers",
    "diffusers": "diffusers alone; ComfyUI applies a part of it, and AUTOMATIC1111, Forge and InvokeAI nothing",
}
"""Programs that apply every module of a file in the layout, as measured with files of SD1.5 and SDXL."""
