"""Rebuild CLIP's merges, which the tokenizer of single-file models needs, from the wheel of open-clip-torch.

    pip download --no-deps open-clip-torch
    python tools/build_clip_tokenizer.py open_clip_torch-*.whl

The wheel carries OpenAI CLIP's `bpe_simple_vocab_16e6.txt.gz` (MIT licence). CLIP uses its first 48,894
merges; the 49,408 tokens follow from them (influencerai/models/clip_tokenizer.py), so only these are shipped.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import zipfile
from pathlib import Path

SOURCE = "open_clip/bpe_simple_vocab_16e6.txt.gz"
SOURCE_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
MERGES = 49_152 - 256 - 2
OUT = Path(__file__).parent.parent / "influencerai/basemodel/configs/clip_tokenizer/merges.txt.gz"


def main() -> None:
    """Write the compressed merges; the same wheel gives the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="open_clip_torch-*.whl")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()

    with zipfile.ZipFile(arguments.wheel) as wheel:
        source = wheel.read(SOURCE)
    if (digest := hashlib.sha256(source).hexdigest()) != SOURCE_SHA256:
        raise SystemExit(f"{SOURCE} in {arguments.wheel} is not the file that CLIP came with (SHA-256 {digest}).")
    lines = gzip.decompress(source).decode().split("\n")
    merges = lines[1 : 1 + MERGES]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(gzip.compress("\n".join(merges).encode(), compresslevel=9, mtime=0))
    print(f"{len(merges)} merges, {arguments.out.stat().st_size} bytes: {arguments.out}")


if __name__ == "__main__":
    main()
