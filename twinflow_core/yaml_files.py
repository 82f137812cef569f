"""Reading a YAML file that a person wrote, or somebody who means harm: plain values, or one kind of error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LARGEST_BYTES = 1_000_000
MOST_VALUES = 100_000
DEEPEST = 64


class UnreadableYamlError(ValueError):
    """The file holds no YAML that can be used; the message says why."""


def read_yaml(path: Path) -> Any:
    """The document of a YAML file as plain dictionaries, lists and scalars; None for an empty file.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableYamlError: it cannot be read, is no YAML, holds a scalar that is none, is deeper than Python
            can follow, or is larger than a person writes, also through aliases of aliases (a "bomb").
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise UnreadableYamlError(f"it is larger than {LARGEST_BYTES} bytes")
        return _parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnreadableYamlError):
        raise
    except RecursionError:
        raise UnreadableYamlError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise UnreadableYamlError(" ".join(str(error).split())) from None
    except OSError as error:
        raise UnreadableYamlError(f"it cannot be read: {error.strerror}") from None
    # PyYAML's constructors meet `2024-13-45` or `!!bool x` with whatever Python raises.
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise UnreadableYamlError(f"a value in it is malformed: {error}") from None


def _parse(text: str) -> Any:
    # PyYAML looks ahead from every open bracket: thousands of them take it many seconds.
    if text.count("[") + text.count("{") > DEEPEST + text.count("]") + text.count("}"):
        raise UnreadableYamlError("it opens more brackets than it closes")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MOST_VALUES:
            raise UnreadableYamlError(f"its aliases expand to more than {MOST_VALUES} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for with every alias written out."""
    if id(node) not in known:
        # While it is being counted: an alias of itself is without end.
        known[id(node)] = MOST_VALUES + 1
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]
