"""Metrics of a step's parts as those of the step: means go by rows, and what has no row says nothing."""

import math

import torch

from twinflow_core.training.step_metrics import RowMean, StepMetrics, joined_metrics, mean_over


def test_a_mean_goes_by_its_rows_and_the_loss_adds_up() -> None:
    first = StepMetrics(1.0, {"loss_fake": RowMean(3.0, 3), "loss_near": RowMean(35.0, 7)})
    second = StepMetrics(2.0, {"loss_fake": RowMean(5.0, 1), "loss_near": RowMean(0.0, 0)})
    joined = joined_metrics([first, second])
    assert joined.values == {"loss": 3.0, "loss_fake": 2.0, "loss_near": 5.0}
    assert joined.means["loss_fake"].rows == 4


def test_a_metric_that_a_part_lacks_is_that_of_the_others() -> None:
    parts = [StepMetrics(1.0, {}), StepMetrics(2.0, {"rectify": RowMean(6.0, 2)})]
    assert joined_metrics(parts).values == {"loss": 3.0, "rectify": 3.0}


def test_rows_that_are_not_a_number_are_not_hidden_by_others() -> None:
    parts = [StepMetrics(1.0, {"loss_near": RowMean(value, 1)}) for value in (2.0, math.nan)]
    assert math.isnan(joined_metrics(parts).values["loss_near"])


def test_a_row_that_fills_is_in_no_mean() -> None:
    values, weight = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 0.0])
    assert mean_over(values, weight).value == 1.5
    assert mean_over(values, None).value == 3.0
    assert math.isnan(mean_over(values, torch.zeros(3)).value)
    assert math.isnan(mean_over(values[:0], None).value)
