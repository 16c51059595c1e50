"""The stages that pretrain the embedded base model; `tools/pretrain_tiny_avatars.py` runs them in order."""
