"""Normalisation by the root mean square, written as ONNX Runtime knows it."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern


def divide_by_roots(model: ir.Model) -> None:
    """Make x / √v of x · (1 / √v), in place.

    torch has one operator for 1 / √v, which is exported as two. ONNX Runtime looks for the division: it then runs the
    whole norm, mean of squares and scale included, as one node.
    """
    _RULES.apply_to_model(model)


def _times_inverse_root(op: Any, x: ir.Value, v: ir.Value) -> Any:
    return op.Mul(x, op.Reciprocal(op.Sqrt(v)))


def _over_root(op: Any, x: ir.Value, v: ir.Value) -> Any:
    return op.Div(x, op.Sqrt(v))


_RULES = pattern.RewriteRuleSet([pattern.RewriteRule(_times_inverse_root, _over_root)], commute=True)
