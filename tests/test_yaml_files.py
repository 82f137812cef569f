"""params.yaml and shapes.yaml from a hostile hand: their values or one message, at once, whatever is in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinflow_core.errors import TwinflowError
from twinflow_core.params import Params, load_params
from twinflow_core.stages.raw import ShapesSource, load_shapes_source

RIGHT: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "params.tiny.yaml").read_text(encoding="utf-8")
)
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
HOSTILE = [
    BOMB + "data: {source: *a29}\n",
    BOMB.replace("a0: ", "data: ", 1),
    "data: &itself [*itself]\n",
    "[" * 5000,
    "- " * 5000,
    "data: {source: 2024-13-45}\n",
    "count: 2024-13-45\n",
    "count: !!bool x\n",
    "count: !!int ''\n",
    "count: !!timestamp x\n",
    f"count: {'9' * 5000}\n",
    "count: !!python/object/apply:os.system ['touch taken']\n",
    f"data: {{source: {'x' * 2_000_000}}}\n",
    "\x00",
    "1: 2\n",
    "",
    "---\na: 1\n---\nb: 2\n",
]
READERS: list[Callable[[Path], Params | ShapesSource]] = [load_params, load_shapes_source]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_yaml_is_one_short_message_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.monotonic()
    with pytest.raises(TwinflowError) as caught:
        read(path)
    assert time.monotonic() - start < 2
    assert len(str(caught.value)) < 2000
    assert str(path) in caught.value.where
    assert not (tmp_path / "taken").exists()


def test_a_file_that_is_not_utf8_or_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(b"data: \xff\xfe")
    for read in READERS:
        with pytest.raises(TwinflowError):
            read(path)
        with pytest.raises(TwinflowError):
            read(tmp_path)


def test_plain_anchors_still_work(tmp_path: Path) -> None:
    text = yaml.safe_dump({**RIGHT, "encode": None}).replace("encode: null", "encode: &sizes {batch_size: 3}")
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_params(path).encode.batch_size == 3


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=6,
)
quick = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(section=st.sampled_from([*RIGHT]), key=st.text() | st.none(), value=VALUES, data=st.data())
def test_any_value_anywhere_gives_params_or_one_message(
    tmp_path: Path, section: str, key: str | None, value: object, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from([*RIGHT[section]])) if key is None else key
    changed = {**RIGHT, section: {**RIGHT[section], key: value}}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8", errors="replace")
    with suppress(TwinflowError):
        assert isinstance(load_params(path), Params)


@quick
@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode(errors="replace")))
def test_any_bytes_are_no_parameters_and_one_message(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    for read in READERS:
        with pytest.raises(TwinflowError):
            read(path)
