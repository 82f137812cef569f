"""Stage `raw`: data.source -> data/raw, one kind of folder whatever the source.

A folder that holds `shapes.yaml` is rendered; any other is copied, or fetched from a bucket: images, their
captions and metadata files, or packed files as they are, nothing else. Whether an image is usable is for `prepare`
to say.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twinflow_core.data.s3_source import fetch_source, is_in_bucket
from twinflow_core.data.shapes_render import render_dataset
from twinflow_core.data.source_files import SourceFiles, list_files
from twinflow_core.data.sources import find_pairs
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.errors import TwinflowError
from twinflow_core.full_disk import disk_is_full
from twinflow_core.params import Params
from twinflow_core.progress import track
from twinflow_core.stages.entry import run_stage
from twinflow_core.yaml_files import UnreadableYamlError, read_yaml

RAW = Path("data/raw")
SHAPES_FILE = "shapes.yaml"


class ShapesSource(BaseModel):
    """`shapes.yaml`: how many pictures of the bundled shapes world to render, and which."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    count: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]


def raw(params: Params, root: Path) -> None:
    """Fill data/raw from the source.

    Args:
        params: reads `data.source`, a path relative to `root` or absolute or an address `s3://bucket/prefix`,
            and `data.files`.
        root: the folder that holds dvc.yaml.

    Raises:
        TwinflowError: the source is missing, empty, malformed, cannot be read, or overlaps data/raw. data/raw
            is then left as it was.
    """
    target, pattern = root / RAW, params.data.files
    if is_in_bucket(params.data.source):
        with whole_folder(target) as folder:
            fetch_source(params.data.source, pattern, folder)
        return
    source = root / Path(params.data.source).expanduser()
    if (source / SHAPES_FILE).is_file():
        shapes = load_shapes_source(source / SHAPES_FILE)
        with whole_folder(target) as folder:
            _render(shapes, folder)
        return
    _refuse_overlap(source, target)
    files = list_files(source, pattern)
    if not files.packed:
        # Reads every metadata line, so that a malformed one is told of under the user's own path.
        find_pairs(source, files)
    with whole_folder(target) as folder:
        _copy(source, files, folder)


def load_shapes_source(path: Path) -> ShapesSource:
    """Read and validate a `shapes.yaml`.

    Raises:
        TwinflowError: it is not YAML, or a key is unknown, missing or out of range.
    """
    try:
        return ShapesSource.model_validate(read_yaml(path))
    except UnreadableYamlError as error:
        fault = str(error)
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    raise TwinflowError(
        f"{SHAPES_FILE} is not valid.",
        where=f"{path}: {fault}",
        fix="Write two keys, e.g. `count: 6000` and `seed: 0`.",
    )


def _render(shapes: ShapesSource, folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    rows = render_dataset(shapes.count, shapes.seed)
    with (folder / "metadata.jsonl").open("w", encoding="utf-8", newline="\n") as metadata:
        for index, (pixels, caption, record) in enumerate(track(rows, "raw", shapes.count)):
            name = f"images/{index:06d}.png"
            Image.fromarray(pixels).save(folder / name, format="PNG")
            line = {"file_name": name, "text": caption, **record}
            metadata.write(json.dumps(line, sort_keys=True) + "\n")


def _copy(source: Path, files: SourceFiles, folder: Path) -> None:
    for name in track(files.all_names(), "raw", len(files)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / name, folder / name)
        except OSError as error:
            if disk_is_full(error):
                raise
            raise TwinflowError(
                "A file of the data folder could not be copied.",
                where=f"{source / name}: {error.strerror}",
                fix="Check its permissions.",
            ) from None


def _refuse_overlap(source: Path, target: Path) -> None:
    here, there = source.resolve(), target.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise TwinflowError(
            "The data source and data/raw lie in one another.",
            where=str(source),
            fix="Keep the images in a folder of their own and set data.source to it.",
        )


if __name__ == "__main__":
    run_stage(raw)
