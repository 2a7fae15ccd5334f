"""Every kind of image is decoded right, or rejected with a code."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from calotype.data import decode as decoding
from calotype.data.decode import FORMATS, REJECTIONS, DecodeError, decode, decode_fitted, examine, fit
from calotype.params import ImageParams

CAP = 1.0


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    red = (columns * 255 // size[0]).astype(np.uint8)
    green = (rows * 255 // size[1]).astype(np.uint8)
    return Image.fromarray(np.dstack([red, green, np.full_like(red, 60)])).convert(mode)


def rejected(data: bytes, cap: float = CAP) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(data, max_megapixels=cap)
    assert caught.value.code in REJECTIONS
    return caught.value


def outcome(data: bytes) -> str:
    try:
        return decode(data, max_megapixels=CAP).mode
    except DecodeError as error:
        return error.code


def form(size: int = 8, channels: int = 3, resize: str = "stretch") -> ImageParams:
    return ImageParams.model_validate({"size": size, "channels": channels, "resize": resize})


def far_apart(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one.convert("RGB"), float) - np.asarray(other.convert("RGB"), float)).mean())


@pytest.mark.parametrize(("kind", "limit"), [("JPEG", 4), ("PNG", 0), ("WEBP", 6), ("BMP", 0), ("TIFF", 0), ("PPM", 0)])
def test_a_colour_image_of_each_format_comes_back(kind: str, limit: float) -> None:
    decoded, facts = examine(encoded(picture(), kind), max_megapixels=CAP)
    assert decoded.mode == "RGB"
    assert far_apart(decoded, picture()) <= limit
    assert facts == (40, 30, "RGB", kind)
    assert kind in FORMATS


def test_a_single_frame_gif_is_decoded_through_its_palette() -> None:
    decoded, facts = examine(encoded(picture().quantize(64), "GIF"), max_megapixels=CAP)
    assert decoded.mode == "RGB"
    assert far_apart(decoded, picture()) < 12
    assert facts.mode == "P"


@pytest.mark.parametrize("kind", ["PNG", "PPM", "JPEG"])
def test_a_grey_image_stays_grey(kind: str) -> None:
    assert decode(encoded(picture("L"), kind), max_megapixels=CAP).mode == "L"


def test_plain_pgm_reads_as_pillow_reads_it() -> None:
    data = encoded(picture("L"), "PPM")
    assert data.startswith(b"P5")
    with_comment = data.replace(b"P5\n", b"P5\n# by a scanner\n", 1)
    quick, by_pillow = decode(data, max_megapixels=CAP), decode(with_comment, max_megapixels=CAP)
    assert quick.tobytes() == by_pillow.tobytes() == picture("L").tobytes()


def test_pixels_that_look_like_white_space_are_not_taken_for_the_header() -> None:
    data = b"P5\n2 2\n255\n" + b"\n \t\n"
    assert decode(data, max_megapixels=CAP).tobytes() == b"\n \t\n"


def test_a_bilevel_image_is_black_and_white() -> None:
    decoded = decode(encoded(picture().convert("1"), "PNG"), max_megapixels=CAP)
    assert decoded.mode == "L"
    assert set(np.unique(np.asarray(decoded))) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    values = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40)
    if kind == "PPM":
        data = b"P5 40 30 65535\n" + values.astype(">u2").tobytes()
    else:
        data = encoded(Image.fromarray(values), kind)
    decoded = decode(data, max_megapixels=CAP)
    assert decoded.mode == "L"
    assert np.array_equal(np.asarray(decoded), np.round(values / 257).astype(np.uint8))


def test_twelve_bits_fill_the_range() -> None:
    values = np.array([[0, 2048, 4095]], dtype=np.uint16)
    data = bytearray(encoded(Image.fromarray(values), "TIFF"))
    # The tag BitsPerSample (258, one short) says 16; a scanner's file of 12 significant bits packs pairs.
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0])
    at = data.index(struct.pack("<HHI", 258, 3, 1)) + 8
    data[at : at + 2] = struct.pack("<H", 12)
    strip = int.from_bytes(data[(o := data.index(struct.pack("<HHI", 273, 4, 1)) + 8) : o + 4], "little")
    data[strip : strip + 5] = packed
    count = data.index(struct.pack("<HHI", 279, 4, 1)) + 8
    data[count : count + 4] = struct.pack("<I", 5)
    assert np.asarray(decode(bytes(data), max_megapixels=CAP)).tolist() == [[0, 128, 255]]


def test_sixteen_bit_colour_png_keeps_its_high_bytes() -> None:
    decoded = decode(png_rgb16([(0xFFFF, 0x8000, 0x0000)]), max_megapixels=CAP)
    assert decoded.getpixel((0, 0)) == (255, 128, 0)


def test_transparent_colour_of_a_sixteen_bit_png_turns_white() -> None:
    data = png_rgb16([(0xFFFF, 0x8000, 0x0000), (0x0000, 0x1200, 0xFF00)], transparent=(0xFFFF, 0x8000, 0x0000))
    decoded = decode(data, max_megapixels=CAP)
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 0)) == (0, 0x12, 255)


def test_transparent_grey_of_a_sixteen_bit_png_turns_white() -> None:
    pixels = struct.pack(">HH", 1000, 2000)
    data = png(2, 1, depth=16, colour=0, rows=b"\0" + pixels, extra=chunk(b"tRNS", struct.pack(">H", 1000)))
    assert np.asarray(decode(data, max_megapixels=CAP)).tolist() == [[255, 8]]


@pytest.mark.parametrize(("mode", "expected"), [("RGBA", "RGB"), ("LA", "L")])
def test_transparency_is_laid_on_white(mode: str, expected: str) -> None:
    clear = picture(mode)
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    decoded = decode(encoded(clear, "PNG"), max_megapixels=CAP)
    alpha = np.asarray(clear.getchannel("A"), float)[..., None] / 255
    colour = np.asarray(picture(expected), float).reshape(*alpha.shape[:2], -1)
    by_hand = colour * alpha + 255 * (1 - alpha)
    assert decoded.mode == expected
    assert np.abs(np.asarray(decoded, float).reshape(by_hand.shape) - by_hand).max() <= 1


def test_a_transparent_palette_entry_turns_white() -> None:
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([10, 20, 30, 200, 0, 0])
    indexed.putpixel((1, 0), 1)
    decoded = decode(encoded(indexed, "PNG", transparency=0), max_megapixels=CAP)
    assert [decoded.getpixel((0, 0)), decoded.getpixel((1, 0))] == [(255, 255, 255), (200, 0, 0)]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(kind: str) -> None:
    decoded = decode(encoded(picture("CMYK"), kind), max_megapixels=CAP)
    assert decoded.mode == "RGB"
    assert far_apart(decoded, picture()) < 5


HOLDS = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "L"), "WEBP": ("RGB", "RGBA"), "TIFF": ("RGB", "L")}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in HOLDS.items() for mode in modes])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int, kind: str, mode: str) -> None:
    stored = picture()
    # The stored rows are those which the orientation turns back into the upright picture.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    if undo is not None:
        stored = stored.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded, facts = examine(encoded(stored.convert(mode), kind, exif=exif, **options), max_megapixels=CAP)
    assert decoded.size == (facts.width, facts.height) == (40, 30)
    assert far_apart(decoded, picture("L") if mode == "L" else picture()) < 5


def test_broken_exif_does_not_reject_a_whole_picture() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff")
    assert decode(data, max_megapixels=CAP).size == (40, 30)


def test_a_file_is_what_its_content_says() -> None:
    # Names never reach `decode`: bytes alone decide.
    assert examine(encoded(picture(), "PNG"), max_megapixels=CAP)[1].format == "PNG"


def test_a_phone_jpeg_with_further_pictures_is_its_photograph() -> None:
    data = encoded(picture(), "MPO", save_all=True, append_images=[picture("L").convert("RGB")])
    decoded, facts = examine(data, max_megapixels=CAP)
    assert facts.format == "JPEG"
    assert far_apart(decoded, picture()) < 5


def test_an_empty_file_is_rejected() -> None:
    assert rejected(b"").code == "empty"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "PostScript"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "HEIC"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"just text", "6a 75 73 74"),
    ],
)
def test_other_content_is_rejected_by_name(data: bytes, named: str) -> None:
    error = rejected(data)
    assert error.code == "unsupported-format"
    assert named in error.reason


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "JPEG2000", "ICNS", "SGI", "DDS"])
def test_formats_outside_the_list_are_never_opened(kind: str) -> None:
    assert rejected(encoded(picture(size=(64, 64)), kind)).code == "unsupported-format"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_range_are_rejected(mode: str) -> None:
    assert rejected(encoded(picture("L").convert(mode), "TIFF")).code == "unsupported-mode"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_rejected(kind: str) -> None:
    data = encoded(picture(), kind, save_all=True, append_images=[picture().rotate(180)])
    assert rejected(data).code == "animated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_the_pixel_cap_holds_for_each_format(kind: str) -> None:
    data = encoded(picture(), kind)
    error = rejected(data, cap=40 * 30 / 1e6 - 1e-6)
    assert error.code == "too-large"
    assert "40 × 30" in error.reason
    decode(data, max_megapixels=40 * 30 / 1e6)


def test_a_bomb_is_refused_before_a_pixel_is_decoded() -> None:
    data = png(50_000, 50_000, depth=8, colour=0, rows=b"")
    assert rejected(data, cap=100).code == "too-large"


def test_our_cap_replaces_that_of_pillow() -> None:
    # 200 megapixels of bilevel black: Pillow alone refuses these.
    data = png(20_000, 10_000, depth=1, colour=0, rows=bytes(2501) * 10_000)
    assert decode(data, max_megapixels=200).size == (20_000, 10_000)
    assert Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
@pytest.mark.parametrize("part", [0.02, 0.1, 0.5, 0.9])
def test_a_cut_file_is_rejected(kind: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    code = rejected(data[: int(len(data) * part)]).code
    assert code in ("truncated", "corrupt")
    if part >= 0.1 and kind != "TIFF":
        assert code == "truncated"


def test_a_progressive_jpeg_that_is_cut_is_rejected() -> None:
    data = encoded(picture(size=(200, 200)), "JPEG", progressive=True)
    assert rejected(data[: len(data) * 2 // 3]).code == "truncated"


def test_a_broken_checksum_is_corrupt() -> None:
    data = bytearray(encoded(picture(), "PNG"))
    data[data.index(b"IDAT") + 20] ^= 0xFF
    assert rejected(bytes(data)).code == "corrupt"


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]), st.data())
def test_damaged_bytes_give_a_picture_or_a_code_and_nothing_else(kind: str, draw: st.DataObject) -> None:
    data = bytearray(encoded(picture(size=(16, 12)), kind))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    assert outcome(bytes(data)) in {"L", "RGB", *REJECTIONS}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"BM", b"P5\n"]), st.binary())
def test_any_bytes_give_a_picture_or_a_code(head: bytes, tail: bytes) -> None:
    assert outcome(head + tail) in {"L", "RGB", *REJECTIONS}


def test_no_warning_leaks() -> None:
    palette = picture().quantize(16)
    files = [
        encoded(palette, "PNG", transparency=bytes(range(16))),
        encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff"),
        png(10_000, 9_500, depth=1, colour=0, rows=bytes(1251) * 9_500),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        for data in files:
            decode(data, max_megapixels=100)
        assert warnings.filters == before


def test_threads_decode_alike_and_leave_pillow_as_it_was() -> None:
    data = [encoded(picture(size=(20 + n, 30)), "PNG") for n in range(50)] * 4
    alone = [decode(item, max_megapixels=CAP).tobytes() for item in data]
    limit = Image.MAX_IMAGE_PIXELS
    barrier = threading.Barrier(8)

    def work(part: int) -> list[bytes]:
        barrier.wait()
        return [decode(item, max_megapixels=CAP).tobytes() for item in data[part::8]]

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(work, range(8)))
    assert all(parts[part] == alone[part::8] for part in range(8))
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_the_right_size_passes_unchanged(resize: str, channels: int) -> None:
    square = picture("L" if channels == 1 else "RGB", (24, 24))
    fitted = fit(square, form(24, channels, resize))
    assert fitted.dtype == np.uint8
    assert fitted.flags["C_CONTIGUOUS"]
    assert np.array_equal(fitted, np.asarray(square).reshape(24, 24, channels).transpose(2, 0, 1))


def test_grey_is_repeated_and_colour_is_weighed() -> None:
    grey = fit(picture("L"), form(8, 3))
    assert np.array_equal(grey[0], grey[1])
    assert np.array_equal(grey[0], grey[2])
    assert np.array_equal(fit(picture("L"), form(8, 1)), fit(picture(), form(8, 1)))


def test_stretch_shows_the_whole_picture_and_crop_its_centre() -> None:
    halves = Image.new("L", (90, 30))
    halves.paste(255, (30, 0, 60, 30))
    assert fit(halves, form(30, 1, "crop")).mean() > 250
    assert fit(halves, form(30, 1, "stretch"))[0, :, 15].mean() == 255
    assert fit(halves, form(30, 1, "stretch"))[0, :, 3].mean() == 0


def test_pad_centres_on_black() -> None:
    padded = fit(Image.new("L", (90, 30), 200), form(30, 1, "pad"))[0]
    assert np.array_equal(np.flatnonzero(padded.any(axis=1)), np.arange(10, 20))
    assert (padded[10:20] == 200).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["stretch", "crop", "pad"]),
    st.sampled_from([1, 3]),
    st.sampled_from(["L", "RGB"]),
)
def test_any_picture_fits(width: int, height: int, resize: str, channels: int, mode: str) -> None:
    fitted = fit(picture(mode, (width, height)), form(16, channels, resize))
    assert fitted.shape == (channels, 16, 16)
    assert fitted.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_turning_the_picture_turns_what_fits(resize: str) -> None:
    upright = fit(picture("L", (60, 40)), form(20, 1, resize))
    turned = fit(picture("L", (60, 40)).transpose(Image.Transpose.ROTATE_90), form(20, 1, resize))
    assert np.abs(np.rot90(upright[0]).astype(int) - turned[0]).max() <= 1


def test_a_thin_strip_costs_no_memory() -> None:
    assert fit(Image.new("L", (1, 60_000), 9), form(224, 3, "crop")).shape == (3, 224, 224)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_rgb16(pixels: list[tuple[int, int, int]], transparent: tuple[int, int, int] | None = None) -> bytes:
    row = b"\0" + b"".join(struct.pack(">HHH", *pixel) for pixel in pixels)
    extra = chunk(b"tRNS", struct.pack(">HHH", *transparent)) if transparent else b""
    return png(len(pixels), 1, depth=16, colour=2, rows=row, extra=extra)


def jpegs() -> dict[str, bytes]:
    """JPEG files of many kinds, by what is special about them."""
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    found = {
        f"{mode} {size[0]}x{size[1]} quality {quality} {subsampling}": encoded(
            picture(mode, size), "JPEG", quality=quality, subsampling=subsampling
        )
        for mode in ("RGB", "L")
        for size in ((1, 1), (8, 8), (31, 17), (32, 32), (200, 3))
        for quality in (5, 75, 100)
        for subsampling in ("4:4:4", "4:2:2", "4:2:0")
    }
    for name, options in {
        "progressive": {"progressive": True},
        "optimized": {"optimize": True},
        "restart markers": {"restart_marker_blocks": 2},
        "comment": {"comment": b"by a scanner"},
        "turned": {"exif": turned(6)},
        "profile": {"icc_profile": b"x" * 300},
        "kept RGB": {"keep_rgb": True},
    }.items():
        found[name] = encoded(Image.fromarray(noise), "JPEG", **options)
    found["CMYK"] = encoded(picture("CMYK"), "JPEG")
    found["grey progressive"] = encoded(Image.fromarray(noise[:, :, 0]), "JPEG", progressive=True)
    plain = encoded(Image.fromarray(noise), "JPEG")
    found["bytes after the end"] = plain + b"tail"
    found["cut and closed"] = plain[:-200] + b"\xff\xd9"
    found["cut"] = plain[:-200]
    found["damaged inside"] = plain[:700] + bytes(60) + plain[760:]
    return found


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("name", jpegs())
def test_a_jpeg_has_the_pixels_or_the_rejection_that_pillow_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> tuple[Any, ...]:
        try:
            decoded, facts = examine(jpegs()[name], max_megapixels=CAP)
            shapes = [decode_fitted(jpegs()[name], form(32, channels), max_megapixels=CAP) for channels in (1, 3)]
        except DecodeError as error:
            return error.code, error.reason
        return facts, decoded.mode, decoded.tobytes(), [shape.tobytes() for shape in shapes]

    quick = answer()
    monkeypatch.setattr(decoding, "_read_plain_jpeg", lambda *_: None)
    assert quick == answer()


def test_a_plain_jpeg_does_without_pillow_and_one_with_metadata_does_not() -> None:
    assert decoding._read_plain_jpeg(jpegs()["progressive"], CAP) is not None
    for name in ("turned", "profile", "CMYK", "cut", "cut and closed", "bytes after the end"):
        assert decoding._read_plain_jpeg(jpegs()[name], CAP) is None, name


def test_the_pixel_cap_of_a_plain_jpeg_is_read_from_its_header() -> None:
    assert rejected(jpegs()["RGB 32x32 quality 75 4:2:0"], cap=0.001).code == "too-large"
