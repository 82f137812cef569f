"""The serving gate's measurements, made in a fresh process that has ONNX Runtime and no torch.

    python -m twinflow_core.runtime.serving_check --package export --prompts prompts.json --out folder

Reads a list of {"prompt_id", "prompt", "sample", "seed"} (other keys are handed through) and writes

    samples.json   the same list, in the order of the images
    images.npz     images: uint8 [N, H, W, 3], of the package's own size
    result.json    {"finite", "p50_ms", "p95_ms", "rss_mb", "images", "steps", "batch", "provider", "skipped"}

Finite and timed is every size that the package draws at. The worst counts; `sizes` tells each where there are several.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinflow_core.errors import TwinflowError
from twinflow_core.noise import image_noise
from twinflow_core.peak_memory import peak_bytes
from twinflow_core.runtime.loaded_package import Images, LoadedPackage

KEYS = ("prompt_id", "prompt", "sample", "seed")
RENDER_BATCH = 32
MEGABYTE = 1024 * 1024


def check_serving(
    package: Path, wanted: Sequence[dict[str, Any]], out: Path, *, steps: int, batch: int, repeats: int
) -> dict[str, Any]:
    """Load the package, draw the images that are wanted, and measure.

    Args:
        package: folder of the exported package; every file is verified.
        wanted: one entry an image, with KEYS; the noise is that of evaluation.
        out: an existing folder to write into.
        steps: evaluations an image.
        batch: prompts a request when latency is measured, from text to pixels.
        repeats: requests measured, after one to warm up.

    Returns:
        What result.json holds: finite (1 or 0, on zero and random noise, empty and long prompts, at every size),
        p50_ms and p95_ms of a request of the slowest size, rss_mb the process's peak memory, images how many were
        drawn, and in a package of several sizes `sizes`: finite, p50_ms and p95_ms of each.

    Raises:
        TwinflowError: the package is damaged or cannot generate in that many steps.
    """
    generator = LoadedPackage.from_folder(package)
    prompts = [entry["prompt"] for entry in wanted] or [""]
    sizes = {
        size: _at_size(generator, size, prompts, steps, batch, repeats)
        for size in generator.manifest.size_names
    }
    images = _draw(generator, wanted, steps)
    np.savez(out / "images.npz", images=images)
    (out / "samples.json").write_text(json.dumps(list(wanted), ensure_ascii=False) + "\n", encoding="utf-8")
    result = {
        "finite": min(each["finite"] for each in sizes.values()),
        **{name: max(each[name] for each in sizes.values()) for name in ("p50_ms", "p95_ms")},
        "rss_mb": peak_bytes() / MEGABYTE,
        "images": len(images),
        "steps": steps,
        "batch": batch,
        "provider": generator.provider.name,
        "skipped": dict(generator.provider.skipped),
        **({"sizes": sizes} if len(sizes) > 1 else {}),
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _at_size(
    generator: LoadedPackage, size: str, prompts: Sequence[str], steps: int, batch: int, repeats: int
) -> dict[str, float]:
    finite = _finite(generator, size, steps)
    latencies = _latencies_ms(generator, size, prompts, steps, batch, repeats)
    return {
        "finite": int(finite),
        "p50_ms": float(np.percentile(latencies, 50)),
        "p95_ms": float(np.percentile(latencies, 95)),
    }


def _finite(generator: LoadedPackage, size: str, steps: int) -> bool:
    shape = generator.manifest.at(size).latent_shape
    noises = [np.zeros((steps, *shape), np.float32), image_noise(0, "finite", steps, shape)]
    prompts = ["", "word " * 200]
    pairs = [(noise, prompt) for noise in noises for prompt in prompts]
    embeddings = generator.encode([prompt for _, prompt in pairs])
    images = generator.render(np.stack([noise for noise, _ in pairs]), embeddings)
    return bool(np.isfinite(images).all())


def _latencies_ms(
    generator: LoadedPackage, size: str, prompts: Sequence[str], steps: int, batch: int, repeats: int
) -> list[float]:
    request = [prompts[index % len(prompts)] for index in range(batch)]
    generator.generate(request, 0, steps, batch, size)
    measured = []
    for repeat in range(repeats):
        start = time.perf_counter()
        generator.generate(request, repeat, steps, batch, size)
        measured.append(1000 * (time.perf_counter() - start))
    return measured


def _draw(generator: LoadedPackage, wanted: Sequence[dict[str, Any]], steps: int) -> Images:
    shape = generator.manifest.latent_shape
    noises = [
        image_noise(int(entry["seed"]), f"{entry['prompt_id']}/{entry['sample']}", steps, shape)
        for entry in wanted
    ]
    stacked = np.stack(noises) if noises else np.empty((0, steps, *shape), np.float32)
    return generator.generate_from_noise(stacked, [entry["prompt"] for entry in wanted], RENDER_BATCH)


def _read_wanted(path: Path) -> list[dict[str, Any]]:
    try:
        wanted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TwinflowError(
            "The prompts cannot be read.", where=f"{path}: {error}", fix="Write them again."
        ) from None
    if not isinstance(wanted, list) or any(
        not isinstance(entry, dict) or any(key not in entry for key in KEYS) for entry in wanted
    ):
        raise TwinflowError(
            "The prompts are no list of images to draw.",
            where=str(path),
            fix=f"Each entry needs {', '.join(KEYS)}.",
        )
    return wanted


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; prints result.json's content and exits with the error's code on a failure."""
    parser = argparse.ArgumentParser(description="Load a package, draw images, measure.")
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="JSON list of images to draw")
    parser.add_argument("--out", type=Path, required=True, help="folder for images and result.json")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args(arguments)
    try:
        wanted = _read_wanted(given.prompts)
        given.out.mkdir(parents=True, exist_ok=True)
        result = check_serving(
            given.package, wanted, given.out, steps=given.steps, batch=given.batch, repeats=given.repeats
        )
    except TwinflowError as error:
        print(error, file=sys.stderr)
        sys.exit(int(error.code))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
