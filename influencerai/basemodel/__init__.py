"""Base models: finding one by its name and recognising it by JSON and safetensors headers, without torch."""

from influencerai.basemodel.base_model import BaseModel, find_base_model

__all__ = ["BaseModel", "find_base_model"]
