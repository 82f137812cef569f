"""Copies are found, however they were saved; pictures that only resemble each other are kept."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from tests.source_folders import encoded, picture
from twinflow_core.data.decode import decode_rgb
from twinflow_core.data.duplicates import NEAR_THUMBNAIL, DuplicateIndex, Fingerprint, Relation, fingerprint
from twinflow_core.data.rejections import Reason
from twinflow_core.data.shapes_render import render_dataset
from twinflow_core.data.splits import Split, split_of

BITS = 4


def _print(image: Image.Image, form: str = "PNG", **options: int) -> Fingerprint:
    content = encoded(image, form, **options)
    return fingerprint(content, decode_rgb(content))


def _index(image: Image.Image, caption: str, split: Split = "train") -> DuplicateIndex:
    index = DuplicateIndex(BITS)
    index.add(_print(image), "first.png", caption, split)
    return index


def _reason(relation: Relation) -> Reason | None:
    return relation.rejection.reason if relation.rejection else None


def test_the_same_bytes_or_pixels_are_an_exact_duplicate_whatever_the_caption() -> None:
    index = _index(picture(0), "a")
    for copy in (_print(picture(0)), _print(picture(0), compress_level=0), _print(picture(0), "BMP")):
        relation = index.relate(copy, "second.png", "another caption")
        assert _reason(relation) == Reason.EXACT_DUPLICATE
        assert relation.rejection is not None
        assert "first.png" in relation.rejection.detail


def test_a_second_caption_of_one_file_is_kept_in_the_same_split_and_a_repeated_one_is_not() -> None:
    index = _index(picture(0), "a", split="validation")
    assert index.relate(_print(picture(0)), "first.png", "b") == Relation(split="validation")
    assert _reason(index.relate(_print(picture(0)), "first.png", "a")) == Reason.EXACT_DUPLICATE


def _photographs() -> list[Image.Image]:
    return [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")]


def test_copies_of_photographs_are_near_duplicates_under_an_equal_caption() -> None:
    for photograph in _photographs():
        index = _index(photograph, "a photo")
        width, height = photograph.size
        slightly_smaller = photograph.resize(
            (width - width // 10, height - height // 10), Image.Resampling.LANCZOS
        )
        for copy in (
            _print(photograph, "JPEG", quality=75),
            _print(photograph, "JPEG", quality=40),
            _print(photograph, "WEBP", quality=60),
            _print(slightly_smaller),
            _print(photograph.resize((width // 2, height // 2)), "JPEG", quality=80),
        ):
            assert _reason(index.relate(copy, "second.jpg", "a photo")) == Reason.NEAR_DUPLICATE
            assert index.relate(copy, "second.jpg", "another") == Relation(split="train")


def test_different_photographs_are_no_duplicates() -> None:
    index = DuplicateIndex(BITS)
    for number, photograph in enumerate(_photographs()):
        assert index.relate(_print(photograph), f"{number}.png", "a photo") == Relation()
        index.add(_print(photograph), f"{number}.png", "a photo", "train")


def test_most_jpeg_and_resized_copies_of_the_bundled_shapes_are_caught() -> None:
    """At 32x32 the code's errors are as large as a picture's details; most copies are still found."""
    index, copies = DuplicateIndex(BITS), []
    for number, (pixels, caption, _) in enumerate(render_dataset(300, seed=1)):
        image, name = Image.fromarray(pixels), f"{number}.png"
        index.add(_print(image), name, caption, "train")
        copies.append((_print(image, "JPEG", quality=90), name, caption))
        copies.append((_print(image.resize((40, 40), Image.Resampling.LANCZOS)), name, caption))
    caught = [_reason(index.relate(copy, f"copy of {name}", caption)) for copy, name, caption in copies]
    assert np.mean([reason is not None for reason in caught]) > 0.85


def test_the_bundled_set_is_kept_but_for_true_repetitions() -> None:
    index, reasons, count = DuplicateIndex(BITS), [], 6000
    for number, (pixels, caption, _) in enumerate(render_dataset(count, seed=0)):
        image = fingerprint(pixels.tobytes(), pixels)
        relation = index.relate(image, str(number), caption)
        reasons.append(_reason(relation))
        if relation.rejection is None:
            index.add(image, str(number), caption, "train")
    assert reasons.count(None) >= 0.99 * count
    assert reasons.count(Reason.NEAR_DUPLICATE) <= 0.002 * count


def _made(content: int, perceptual: int, level: int) -> Fingerprint:
    name = hashlib.sha256(str(content).encode())
    return Fingerprint(name.hexdigest(), name.digest(), perceptual, np.full(192, level, dtype=np.uint8))


# A few base hashes with a few bits changed, so that distances around the limit are common.
PERCEPTUAL = st.builds(
    lambda base, flips: base ^ sum(1 << bit for bit in flips),
    st.sampled_from([0, 2**64 - 1, 0x0F0F_0F0F_F0F0_F0F0]),
    st.sets(st.integers(0, 63), max_size=6),
)
IMAGES = st.lists(st.tuples(PERCEPTUAL, st.integers(0, 9), st.sampled_from("ab")), max_size=30)


@given(IMAGES, st.integers(0, 8))
@settings(max_examples=60)
def test_the_index_finds_what_a_comparison_with_every_image_finds(
    images: list[tuple[int, int, str]], bits: int
) -> None:
    index = DuplicateIndex(bits)
    kept: list[tuple[int, int, str, Split]] = []
    for number, (perceptual, level, caption) in enumerate(images):
        image = _made(number, perceptual, level)
        near = [
            row
            for row in kept
            if (row[0] ^ perceptual).bit_count() <= bits and abs(row[1] - level) <= NEAR_THUMBNAIL
        ]
        relation = index.relate(image, str(number), caption)
        if any(row[2] == caption for row in near):
            assert _reason(relation) == Reason.NEAR_DUPLICATE
            continue
        assert relation == Relation(split=near[0][3] if near else None)
        split = relation.split or split_of(image.content, 0.5)
        kept.append((perceptual, level, caption, split))
        index.add(image, str(number), caption, split)


@given(st.permutations(range(12)), st.integers(12, 40))
def test_an_image_unlike_the_others_moves_none_of_them(order: list[int], added: int) -> None:
    def splits(seeds: list[int]) -> dict[int, str]:
        index, found = DuplicateIndex(BITS), {}
        for seed in seeds:
            image = PRINTS[seed]
            relation = index.relate(image, str(seed), "a")
            assert relation.rejection is None
            found[seed] = relation.split or split_of(image.content, 0.3)
            index.add(image, str(seed), "a", "train" if found[seed] == "train" else "validation")
        return found

    before = splits(list(range(12)))
    assert before == {seed: split for seed, split in splits([added, *order]).items() if seed != added}


PRINTS = [_print(picture(seed)) for seed in range(41)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2000, 16)])
def test_any_shape_has_a_fingerprint_that_depends_on_content_alone(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 7, dtype=np.uint8)
    first, second = fingerprint(b"x", pixels), fingerprint(b"x", np.asfortranarray(pixels))
    assert (first.pixels, first.perceptual) == (second.pixels, second.perceptual)
    assert (
        first.pixels != fingerprint(b"x", pixels.transpose(1, 0, 2).reshape(-1, 1, 3)).pixels or shape[1] == 1
    )
