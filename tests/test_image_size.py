"""Sizes as users write them, and the bucket of nearest shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.image_size import ImageSize, nearest_shape

SIZES = st.builds(ImageSize, st.integers(1, 5000), st.integers(1, 5000))
BUCKETS = st.lists(SIZES, min_size=1, max_size=6)


@given(SIZES)
def test_a_size_reads_as_it_is_written(size: ImageSize) -> None:
    assert ImageSize.read(str(size)) == size


@pytest.mark.parametrize(
    "written", ["64", "64x", "0x64", "64*32", "64x32x3", " 64x32", "-64x32", 64, [64, 32], None]
)
def test_anything_else_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="write WIDTHxHEIGHT"):
        ImageSize.read(written)


@given(BUCKETS, SIZES)
def test_least_is_cropped_in_the_nearest_shape(buckets: list[ImageSize], image: ImageSize) -> None:
    def kept(bucket: ImageSize) -> float:
        """The share of the image that is left after the crop."""
        ratio = (image.width * bucket.height) / (image.height * bucket.width)
        return min(ratio, 1 / ratio)

    nearest = nearest_shape(buckets, image)
    assert kept(nearest) == pytest.approx(max(map(kept, buckets)))
    larger = ImageSize(3 * image.width, 3 * image.height)
    assert kept(nearest_shape(buckets, larger)) == pytest.approx(kept(nearest))


def test_of_two_equally_near_shapes_the_first_is_taken() -> None:
    wide, tall = ImageSize(64, 32), ImageSize(32, 64)
    assert nearest_shape([wide, tall], ImageSize(48, 48)) == wide
    assert nearest_shape([tall, wide], ImageSize(48, 48)) == tall
