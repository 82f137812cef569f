"""Other sizes than the one a backbone is set to: each has graphs of its own, which share their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.image_size import ImageSize

KEY = "export.sizes"


def other_sizes(backbone: Backbone, sizes: Sequence[ImageSize]) -> tuple[ImageSize, ...]:
    """The sizes, each once, without the one that the backbone is set to.

    Raises:
        TwinflowError: the model does not make images of one of them.
    """
    for size in sizes:
        backbone.require_size(size.height, size.width, KEY)
    own = ImageSize(backbone.width, backbone.height)
    return tuple(size for size in dict.fromkeys(sizes) if size != own)


@contextmanager
def drawing_at(backbone: Backbone, size: ImageSize) -> Iterator[None]:
    """The backbone set to this size inside the block."""
    height, width = backbone.height, backbone.width
    backbone.at_size(size.height, size.width, KEY)
    try:
        yield
    finally:
        backbone.height, backbone.width = height, width
