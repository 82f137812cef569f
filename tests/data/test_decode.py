"""Every kind of image becomes the same kind of pixels, and bytes that are not one never become a crash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.source_folders import encoded, picture
from twinflow_core.data.decode import (
    DamagedImageError,
    UnsupportedImageError,
    decode_rgb,
    fit,
    image_size,
)

PICTURE = picture(3)
PIXELS = np.asarray(PICTURE)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_very_pixels(form: str) -> None:
    decoded = decode_rgb(encoded(PICTURE, form))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, PIXELS)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF", "GIF"])
def test_lossy_formats_give_nearly_the_pixels(form: str) -> None:
    decoded = decode_rgb(encoded(PICTURE, form))
    assert decoded.shape == PIXELS.shape
    assert np.abs(decoded.astype(int) - PIXELS).mean() < 12


def test_grey_and_one_bit_images_become_three_equal_channels() -> None:
    for mode in ("L", "1", "LA"):
        decoded = decode_rgb(encoded(PICTURE.convert(mode)))
        assert decoded.shape == PIXELS.shape
        assert (decoded == decoded[..., :1]).all()


def test_sixteen_bits_keep_their_whole_range() -> None:
    ramp = np.linspace(0, 65535, 40 * 48).reshape(40, 48).astype(np.uint16)
    decoded = decode_rgb(encoded(Image.fromarray(ramp)))
    assert np.array_equal(decoded[..., 0], np.rint(ramp / 257).astype(np.uint8))
    assert (decoded.min(), decoded.max()) == (0, 255)


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("RGB", (32, 32), (255, 0, 0)).convert("CMYK")
    assert np.abs(decode_rgb(encoded(red, "JPEG", quality=95)).astype(int) - (255, 0, 0)).max() < 12


def test_transparency_is_laid_over_white() -> None:
    layer = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    layer.putpixel((1, 0), (255, 0, 0, 255))
    layer.putpixel((2, 0), (0, 0, 0, 51))
    assert decode_rgb(encoded(layer))[0, :3].tolist() == [[255, 255, 255], [255, 0, 0], [204, 204, 204]]


def test_a_palette_with_a_transparent_colour_is_laid_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 200, 10, 250, 10])
    image.putpixel((1, 0), 1)
    decoded = decode_rgb(encoded(image, transparency=0))
    assert decoded[0].tolist() == [[255, 255, 255], [10, 250, 10]]


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_rgb(encoded(PICTURE, "PNG", exif=exif))
    assert np.array_equal(decoded, np.rot90(PIXELS, -1))


def test_the_first_frame_stands_for_an_animation() -> None:
    frames = [PICTURE, picture(4), picture(5)]
    for form in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if form == "WEBP" else {}
        content = encoded(PICTURE, form, save_all=True, append_images=frames[1:], **options)
        assert np.abs(decode_rgb(content).astype(int) - PIXELS).mean() < 12, form


def test_pixels_of_unknown_range_are_refused() -> None:
    image = Image.fromarray(np.ones((20, 20), dtype=np.float32))
    with pytest.raises(UnsupportedImageError, match="range"):
        decode_rgb(encoded(image, "TIFF"))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF"])
@pytest.mark.parametrize("lost", [5, 40, 0.5])
def test_a_truncated_file_is_damaged(form: str, lost: float) -> None:
    content = encoded(PICTURE, form)
    end = len(content) - lost if lost >= 1 else len(content) * lost
    with pytest.raises(DamagedImageError):
        decode_rgb(content[: int(end)])


def test_a_changed_bit_in_a_png_is_damaged() -> None:
    content = bytearray(encoded(PICTURE))
    content[len(content) // 2] ^= 1
    with pytest.raises(DamagedImageError):
        decode_rgb(bytes(content))


def test_an_error_names_no_address() -> None:
    for content in (b"", b"not an image", b"GIF89a", b"BM" + bytes(60), b"II*\x00" + bytes(9)):
        with pytest.raises(DamagedImageError) as caught:
            decode_rgb(content)
        assert "0x" not in str(caught.value)


SEEDS = [encoded(PICTURE, form) for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_any_damage_gives_pixels_or_one_of_our_errors(
    content: bytes, changes: list[tuple[float, int]], kept: float
) -> None:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    content = bytes(damaged[: int(kept * len(damaged))])
    try:
        width, height = image_size(content)
        if width * height < 10**6:
            decoded = decode_rgb(content)
            assert decoded.ndim == 3
            assert decoded.dtype == np.uint8
    except (DamagedImageError, UnsupportedImageError):
        pass


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([16, 32, 33]), st.sampled_from([16, 48]))
def test_fit_gives_that_size(width: int, height: int, across: int, down: int) -> None:
    image = np.asarray(picture(1, (width, height)))
    fitted = fit(image, across, down)
    assert fitted.shape == (down, across, 3)
    assert fitted.dtype == np.uint8


@pytest.mark.parametrize("size", [(32, 32), (48, 16)])
def test_fit_leaves_the_right_size_alone_and_keeps_the_centre(size: tuple[int, int]) -> None:
    width, height = size
    right = np.asarray(picture(1, size))
    assert np.array_equal(fit(right, width, height), right)
    wide = np.zeros((height, width + 40, 3), dtype=np.uint8)
    wide[:, 20 : 20 + width] = right
    assert np.array_equal(fit(wide, width, height), right)
    tall = np.zeros((height + 40, width, 3), dtype=np.uint8)
    tall[20 : 20 + height] = right
    assert np.array_equal(fit(tall, width, height), right)
