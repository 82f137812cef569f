"""The tests' parameters are the product's with other numbers, names and paths: no key more, none less."""

from __future__ import annotations

from typing import Any

import yaml

from tests.pipeline_clone import REPOSITORY


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value if isinstance(each, dict)]
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def test_the_tiny_parameters_have_the_shape_of_the_real_ones() -> None:
    real, tiny = (
        shape(yaml.safe_load((REPOSITORY / name).read_text()))
        for name in ("params.yaml", "tests/params.tiny.yaml")
    )
    assert tiny == real
