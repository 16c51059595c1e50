"""Formats: those that are read, and those that are recognised to be named; by suffix and by first bytes."""

from __future__ import annotations

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIC", "GIF", "BMP", "TIFF")
"""Formats that are read."""
SUFFIX_OF = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "HEIC": ".heic",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
}
"""Under which a picture is stored whose name has none."""


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
    ".dib": "BMP",
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
    b"PK\3\4": "zip",
    b"Rar!": "archive",
    b"7z\xbc\xaf": "archive",
    b"\x1f\x8b": "archive",
    b"version https://git-lfs.github.com": "Git LFS pointer",
}
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
"""Lengths of the second header of a BMP, since texts begin with `BM` too."""
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_MARKUP = (b"<!doctype html", b"<html", b"<head", b"<body")
_CONVERT = "Convert it to PNG, JPEG or WebP."
_REMEDIES = {
    "web page": "A site has sent it in place of the picture: download the picture itself.",
    "text": "Replace it by the picture. A caption has the name of its picture, with .txt.",
    "Git LFS pointer": "Fetch the picture itself, with 'git lfs pull'.",
    "video": "Save the frames that you want to train on as PNG or JPEG.",
    "zip": "Unpack it.",
    "archive": "Unpack it.",
    "no image": "Export the picture again, as PNG, JPEG or WebP.",
}
"""The remedy for content that no program can convert to a picture."""
_WHOLE_NOUNS = frozenset({"web page", "Git LFS pointer", "archive", "no image"})


def sniff(head: bytes) -> str | None:
    """The format that the first bytes of a file show, as FORMATS spells those that are read."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if found := next((name for signature, name in _SIGNATURES.items() if head.startswith(signature)), None):
        return found
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text:
        return "SVG"
    if text.startswith(_MARKUP) or (text.startswith((b"<?xml", b"<!--")) and b"<html" in text):
        return "web page"
    return None


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file may be those of a text, in any encoding."""
    return bool(head) and not any(byte < 9 or 13 < byte < 26 for byte in head.replace(b"\0", b""))


def is_grey(head: bytes) -> bool:
    """Whether a PNG has no colours, by its header."""
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR" and head[25:26] in (b"\0", b"\4")


def described(head: bytes) -> tuple[str, str]:
    """(the format with its article, remedy) of a file that is not read, by its first bytes."""
    found = sniff(head) or ("text" if is_text(head) else "no image")
    article = "an" if found.startswith(("A", "a", "O", "SVG")) else "a"
    noun = found if found == "no image" else f"{article} {found}"
    if found not in _WHOLE_NOUNS:
        noun += " file"
    return noun, _REMEDIES.get(found, _CONVERT)


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
