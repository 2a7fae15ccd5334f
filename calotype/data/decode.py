"""The one function that turns encoded bytes into a picture, and the one that brings a picture to the network's form.

Images are hostile input: only the formats of ``FORMATS`` are opened, whatever a file is called; the number of pixels is
read from the header before any pixel is decoded; every pixel is decoded, so that a truncated file is found. What cannot
be decoded right is rejected with a code of ``REJECTIONS``; nothing is guessed.

Plain JPEG goes through simplejpeg, everything else through Pillow. Both stand on libjpeg-turbo, and their pixels are
equal (tolerance 0) at simplejpeg's default flags; without Pillow's opening and checks a 32 × 32 file takes a fifth.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from calotype.params import ImageParams

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is opened, by content and never by name. PPM stands for its family: PBM, PGM, PPM."""

REJECTIONS = {
    "unreadable": "the file could not be read, or is not in the archive or folder that names it",
    "empty": "the file holds no bytes",
    "unsupported-format": "the content is none of JPEG, PNG, WebP, BMP, GIF, TIFF, PBM, PGM, PPM",
    "unsupported-mode": "the pixels have no known range or meaning: floating point, 32 bits, CIELAB",
    "too-large": "the header promises more pixels than `ingest.max_megapixels`",
    "animated": "the file holds several frames or pages",
    "truncated": "the file ends before its image does",
    "corrupt": "the content breaks the rules of its format",
}
"""Every code of a rejected image, with its meaning."""

_SIGNATURES = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_FOREIGN = (
    (re.compile(rb".{4}ftyp(avif|avis)", re.DOTALL), "AVIF"),
    (re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "an MP4 film"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "PostScript"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg", re.IGNORECASE), "SVG"),
    (re.compile(rb"\s*<(!doctype html|html|head|body)", re.IGNORECASE), "a page of HTML"),
    (re.compile(rb"\0\0\x01\0"), "ICO"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL"),
    (re.compile(rb"PK\x03\x04"), "a zip archive"),
    (re.compile(rb"version https://git-lfs"), "a pointer of Git LFS: run `git lfs pull`"),
)
_EXIF_OR_XMP, _PROFILE_OR_PICTURES = b"\xff\xe1", b"\xff\xe2"
"""Markers of JPEG: of what may turn the picture, and of a colour profile or further pictures (MPO)."""

_JPEG_SPACES = {"YCbCr": "RGB", "Gray": "GRAY"}
_PGM = re.compile(rb"P5\s([1-9]\d{0,5})\s([1-9]\d{0,5})\s255\s")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


class DecodeError(Exception):
    """An image that cannot be decoded right: a code of ``REJECTIONS`` and a reason for a person."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Facts(NamedTuple):
    """What a file holds: size as seen (orientation applied), Pillow's mode before conversion, format by content."""

    width: int
    height: int
    mode: str
    format: str


def decode(data: bytes, *, max_megapixels: float) -> Image.Image:
    """Decode one image into 8 bits, grey (``L``) or colour (``RGB``), the way a person would see it.

    EXIF orientation is applied; 16 bits are scaled to 8; transparency is laid on white; palettes, CMYK (Adobe's
    inverted form too) and YCbCr become RGB. Safe to call from several threads.

    Raises
    ------
    DecodeError
        With a code of ``REJECTIONS``.
    """
    return examine(data, max_megapixels=max_megapixels)[0]


def examine(data: bytes, *, max_megapixels: float) -> tuple[Image.Image, Facts]:
    """Decode as `decode` does, and say what the file held.

    Raises
    ------
    DecodeError
        With a code of ``REJECTIONS``.
    """
    found, facts = look(data, max_megapixels=max_megapixels)
    return as_picture(found), facts


def look(data: bytes, *, max_megapixels: float) -> tuple[np.ndarray | Image.Image, Facts]:
    """Decode as `examine` does, and leave the pixels of a plain JPEG as they are: uint8, height × width × 1 or 3.

    Raises
    ------
    DecodeError
        With a code of ``REJECTIONS``.
    """
    pixels = _read_plain_jpeg(data, max_megapixels)
    if pixels is None:
        return _examine_other(data, max_megapixels)
    height, width, channels = pixels.shape
    return pixels, Facts(width, height, "RGB" if channels == 3 else "L", "JPEG")


def as_picture(found: np.ndarray | Image.Image) -> Image.Image:
    """What `look` found, as a picture."""
    if isinstance(found, np.ndarray):
        return Image.fromarray(found if found.shape[2] == 3 else found[:, :, 0])
    return found


def _examine_other(data: bytes, max_megapixels: float) -> tuple[Image.Image, Facts]:
    """Look at what is no plain JPEG."""
    plain = _read_plain_pgm(data, max_megapixels)
    if plain is not None:
        return plain, Facts(*plain.size, "L", "PPM")
    kind = _sniff(data)
    try:
        with _our_rules():
            return _open(data, kind, max_megapixels)
    except DecodeError:
        raise
    except Exception as error:
        # Pillow's parsers meet hostile bytes with almost any exception; none of them may end an ingest.
        raise _explain(error, data, kind) from error


def decode_fitted(data: bytes, image: ImageParams, *, max_megapixels: float) -> np.ndarray:
    """Decode one image into the network's form: what training, evaluation, gate and prediction see.

    The same as `fit` of `decode`, without a `PIL.Image.Image` where a plain JPEG has the right size already.

    Returns
    -------
    numpy.ndarray
        uint8, channels × size × size; a view of pixels in rows where they were decoded so.

    Raises
    ------
    DecodeError
        With a code of ``REJECTIONS``.
    """
    pixels = _read_plain_jpeg(data, max_megapixels)
    if pixels is None:
        return fit(_examine_other(data, max_megapixels)[0], image)
    if pixels.shape == (image.size, image.size, image.channels):
        return pixels.transpose(2, 0, 1)
    return fit(as_picture(pixels), image)


def fit(picture: Image.Image, image: ImageParams) -> np.ndarray:
    """Bring a decoded picture to the network's form.

    ``stretch`` scales each side by itself; ``crop`` scales the shorter side and cuts the centre; ``pad`` scales the
    longer side and centres the picture on black. Scaling is bilinear with antialiasing. Colour becomes grey with the
    weights of ITU-R 601; grey is repeated into three channels. A picture of the right size passes through unchanged.

    Parameters
    ----------
    picture
        Mode ``L`` or ``RGB``, as `decode` returns.
    image
        Size, channels and way of resizing.

    Returns
    -------
    numpy.ndarray
        uint8, contiguous, channels × size × size.
    """
    if image.channels == 1 and picture.mode != "L":
        picture = picture.convert("L")
    pixels = np.asarray(_resize(picture, image))
    if pixels.ndim == 2:
        return np.repeat(pixels[None], image.channels, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _resize(picture: Image.Image, image: ImageParams) -> Image.Image:
    size = image.size
    if picture.size == (size, size):
        return picture
    width, height = picture.size
    if image.resize == "crop":
        # A box instead of an enlarged copy: a strip of 1 × 10,000 pixels must not become gigabytes.
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    if image.resize == "pad":
        scale = size / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new(picture.mode, (size, size))
        resized = picture.resize(inner, Image.Resampling.BILINEAR)
        canvas.paste(resized, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return canvas
    return picture.resize((size, size), Image.Resampling.BILINEAR)


def _read_plain_pgm(data: bytes, max_megapixels: float) -> Image.Image | None:
    """Read 8-bit binary PGM, the form of IDX and digits images, ten times as fast as Pillow opens it."""
    header = _PGM.match(data)
    if header is None:
        return None
    size = (int(header[1]), int(header[2]))
    if len(data) - header.end() != size[0] * size[1]:
        return None
    _check_size(size, max_megapixels)
    return Image.frombytes("L", size, data[header.end() :])


def _read_plain_jpeg(data: bytes, max_megapixels: float) -> np.ndarray | None:
    """Pixels (height, width, 1 or 3) of a whole grey or YCbCr JPEG without metadata; None: Pillow is to look at it."""
    if not (data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")):
        return None
    if _EXIF_OR_XMP in data or _PROFILE_OR_PICTURES in data:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in _JPEG_SPACES:
            return None
        _check_size((width, height), max_megapixels)
        # Strict: what libjpeg-turbo would only warn of is left to Pillow, too.
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, _JPEG_SPACES[space])
    except ValueError:
        return None
    return pixels


def _sniff(data: bytes) -> str:
    if not data:
        raise DecodeError("empty", "0 bytes")
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if re.match(rb"P[1-6]\s", data):
        return "PPM"
    for pattern, name in _FOREIGN:
        if pattern.match(data):
            raise DecodeError("unsupported-format", f"the content is {name}")
    raise DecodeError("unsupported-format", f"the content begins with {data[:8].hex(' ')}, which no known format does")


def _open(data: bytes, kind: str, max_megapixels: float) -> tuple[Image.Image, Facts]:
    picture: Image.Image
    with Image.open(BytesIO(data), formats=[kind]) as picture:
        _check_size(picture.size, max_megapixels)
        # A phone's JPEG may carry further pictures (MPO); the first is the photograph.
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            raise DecodeError("animated", f"the {kind} holds several frames or pages; expected one")
        mode = picture.mode
        picture.load()
        upright = _upright(_to_eight_bits(picture))
        return upright, Facts(*upright.size, mode, kind)


def _check_size(size: tuple[int, int], max_megapixels: float) -> None:
    width, height = size
    if width * height > max_megapixels * 1e6:
        raise DecodeError(
            "too-large", f"{width} × {height} is {width * height / 1e6:.1f} megapixels; allowed are {max_megapixels:g}"
        )


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode in _SIXTEEN_BITS or (mode == "I" and picture.format == "PPM"):
        return _scale_to_eight_bits(picture)
    if mode in _WITH_ALPHA or ("transparency" in picture.info and mode in ("1", "L", "P", "RGB")):
        return _lay_on_white(picture)
    if mode in ("L", "RGB"):
        return picture
    if mode == "1":
        return picture.convert("L")
    if mode in ("P", "CMYK", "YCbCr", "RGBX"):
        return picture.convert("RGB")
    raise DecodeError("unsupported-mode", f"pixels of mode {mode}; expected 8 or 16 bits of grey or colour")


def _scale_to_eight_bits(picture: Image.Image) -> Image.Image:
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0]
    highest = 2**bits - 1
    values = np.asarray(picture).astype(np.uint32)
    grey = ((np.minimum(values, highest) * 255 + highest // 2) // highest).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return _with_exif_of(picture, Image.fromarray(grey))


def _lay_on_white(picture: Image.Image) -> Image.Image:
    base = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    if picture.mode == "RGB" and max(picture.info["transparency"]) > 255:
        # A 16-bit PNG names its transparent colour in 16 bits; Pillow has brought the pixels to 8 already.
        picture.info["transparency"] = tuple(value >> 8 for value in picture.info["transparency"])
    clear = picture.convert("RGBA")
    canvas = Image.new(base, picture.size, "white")
    canvas.paste(clear.convert(base), mask=clear.getchannel("A"))
    return _with_exif_of(picture, canvas)


def _with_exif_of(picture: Image.Image, other: Image.Image) -> Image.Image:
    # Pillow reads EXIF from the opened file; what is drawn anew takes the raw bytes along.
    other.info = {key: value for key, value in picture.info.items() if key in ("exif", "xmp", "Raw profile type exif")}
    return other


def _upright(picture: Image.Image) -> Image.Image:
    try:
        orientation = picture.getexif().get(_EXIF_ORIENTATION)
    except Exception:
        # Broken EXIF says nothing about the pixels, which are whole.
        return picture
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def _explain(error: Exception, data: bytes, kind: str) -> DecodeError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = f"the header of the {kind} cannot be read"
    if "truncated" in reason.lower() or isinstance(error, EOFError) or _is_cut(data, kind):
        return DecodeError("truncated", f"{reason} ({len(data):,} bytes of {kind})")
    return DecodeError("corrupt", f"{reason} ({kind})")


def _is_cut(data: bytes, kind: str) -> bool:
    if kind in ("JPEG", "PNG"):
        return {"JPEG": b"\xff\xd9", "PNG": b"IEND"}[kind] not in data[-4096:]
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return kind == "BMP" and int.from_bytes(data[2:6], "little") > len(data)


_rules_lock = threading.Lock()
_rules_depth = 0
_rules_saved: tuple[list[tuple[object, ...]], int | None] = ([], None)


@contextmanager
def _our_rules() -> Iterator[None]:
    """Put Pillow's warnings and its own pixel limit aside while any thread decodes: the cap above replaces both.

    `warnings.catch_warnings` does not work with threads: the first to leave would restore what the second relies on.
    """
    global _rules_depth, _rules_saved
    with _rules_lock:
        if _rules_depth == 0:
            _rules_saved = (list(warnings.filters), Image.MAX_IMAGE_PIXELS)
            warnings.filterwarnings("ignore", module=r"PIL\.")
            Image.MAX_IMAGE_PIXELS = None
        _rules_depth += 1
    try:
        yield
    finally:
        with _rules_lock:
            _rules_depth -= 1
            if _rules_depth == 0:
                warnings.filters[:], Image.MAX_IMAGE_PIXELS = _rules_saved  # type: ignore[index]
