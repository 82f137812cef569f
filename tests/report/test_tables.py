"""The table of scores has a column for every model and setting, at every size."""

from __future__ import annotations

from twinflow_core.report.tables import score_table


def test_other_sizes_have_columns_of_their_own_after_those_of_the_square() -> None:
    found = {"score": 0.5, "tasks": {"captions": 0.5}, "diversity": 0.2}
    wide = {
        "reference": {**found, "score": 0.8},
        "candidate": {"nfe2": found, "nfe1": {**found, "score": 0.7}},
    }
    metrics = {"reference": {**found, "nfe": 4}, "candidate": {"nfe1": found}, "sizes": {"64x32": wide}}
    table = score_table(metrics)
    assert table is not None
    assert table.columns == (
        ("base", "4 NFE"),
        ("candidate", "1 NFE"),
        ("base, 64x32", "4 NFE"),
        ("candidate, 64x32", "1 NFE"),
        ("candidate, 64x32", "2 NFE"),
    )
    scores = next(cells for name, cells in table.rows if name == "score")
    assert [cell.text for cell in scores] == ["0.500", "0.500", "0.800", "0.700", "0.500"]
