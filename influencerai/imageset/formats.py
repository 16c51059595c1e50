"""Formats: those that are read, and those that are recognised to be named; by suffix and by first bytes."""

from __future__ import annotations

from pathlib import PurePosixPath

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIC")
"""Formats that are read."""


def suffixes(names: str) -> frozenset[str]:
    """File suffixes from names that are separated by blanks."""
    return frozenset(f".{name}" for name in names.split())


RAW_SUFFIXES = suffixes("raw dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw x3f 3fr iiq rwl dcr kdc mrw")
"""Of the RAW files of cameras."""
IMAGE_SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".avifs": "AVIF",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".hif": "HEIC",
    ".heics": "HEIC",
    ".jxl": "JPEG XL",
    ".jp2": "JPEG 2000",
    ".j2k": "JPEG 2000",
    ".tga": "Targa",
    ".ico": "icon",
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    ".pbm": "PNM",
    ".pgm": "PNM",
    ".ppm": "PNM",
}
"""Of the files that users mean as pictures, whether the format can be read or not."""

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"%PDF": "PDF",
    b"gimp xcf": "GIMP",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"<svg": "SVG",
    b"%!PS": "PostScript",
    b"FUJIFILMCCD-RAW": "camera RAW",
    b"IIRO": "camera RAW",
    b"IIU\0": "camera RAW",
    b"\x1aE\xdf\xa3": "video",
}
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_MARKUP = (b"<!DOCTYPE html", b"<html", b"<HTML", b"<!doctype html")


def sniff(head: bytes) -> str | None:
    """The format that the first bytes of a file show, as FORMATS spells those that are read."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if found := next((name for signature, name in _SIGNATURES.items() if head.startswith(signature)), None):
        return found
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<?xml") and b"<svg" in text:
        return "SVG"
    return "web page" if text.startswith(_MARKUP) else None


def named_format(path: str, head: bytes) -> str | None:
    """The format that content, or else the name, shows; a RAW file is a TIFF by content."""
    if PurePosixPath(path).suffix.lower() in RAW_SUFFIXES:
        return "camera RAW"
    return sniff(head)


def _iso_media(head: bytes) -> str:
    """The format of an ISO media file, by its brand or, for `mif1` and `msf1`, by the compatible ones."""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, min(size, len(head)), 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "AVIF"
    if brands[0] == b"crx ":
        return "camera RAW"
    if brands[0] == b"jxl ":
        return "JPEG XL"
    return "HEIC" if any(brand in _HEIC_BRANDS for brand in brands) else "video"
