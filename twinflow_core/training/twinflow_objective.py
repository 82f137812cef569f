"""One TwinFlow step: from a batch, its draws and the networks to a loss (arXiv 2512.05150, eq. 1, 2, 9, 10).

Cost in forward-equivalents a row at order 2 with four equal roles and guidance, a backward counting as two:
gradient 3, fakes 1/4, guidance 1, RCGM 3/2, rectification 1/2, together 6.25. `near_target: velocity` saves the
RCGM of the near rows (1/2), `fakes: shared` the evaluations that make the fakes (1/4).
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.flow.losses import robust, squared_error, time_weight
from twinflow_core.flow.path import interpolate
from twinflow_core.flow.targets import (
    CLAMP,
    adversarial_target,
    flow_matching_target,
    rcgm_target,
    rectification_target,
    renoised_image,
)
from twinflow_core.training.fakes import with_fakes, with_shared_fakes
from twinflow_core.training.guidance import base_velocity, guided_velocity
from twinflow_core.training.roles import ROLES, RoleCounts
from twinflow_core.training.step import Batch, MicroBatch, Networks, StepLoss
from twinflow_core.training.step_metrics import RowMean
from twinflow_core.training.twinflow_draws import StepDraws, at_equal_times


def twinflow_loss(networks: Networks, rows: MicroBatch, options: FinetuneParams) -> StepLoss:
    """L = L_rcgm + adversarial_weight L_adv + rectify_weight L_rectify.

    Args:
        networks: see `Networks`; only `online`, and `fake` where it is, receive a gradient.
        rows: the x of fake rows is not used, nor any x in a data-free step.
        options: order, delta, guidance, weights.

    Returns:
        The mean loss over the whole step's rows; rectification is a mean over its own rows.
    """
    batch, draws, counts = rows.batch, rows.draws, rows.counts
    fake = slice(counts.total - counts.fake, counts.total)
    if options.near_target == "velocity":
        draws = at_equal_times(draws, slice(counts.one_step, counts.one_step + counts.near))
    batch, prediction = _predict(networks, batch, draws, counts, options)
    x_t = interpolate(batch.x, draws.z, draws.t)
    one_step = prediction[: counts.one_step]
    rectifies = counts.one_step > 0 and options.rectify_weight > 0
    with torch.no_grad():
        renoised = _renoised(one_step, draws) if rectifies else x_t[:0]
        v_star, v_real = _real_velocities(networks, batch, x_t, renoised, draws, counts, options)
        target, recursive, error = _real_targets(
            networks, batch, x_t, v_star, prediction, draws, counts, options
        )
        target = torch.cat([target, adversarial_target(batch.x[fake], draws.z[fake])])
    distance = _distance(prediction, target, counts.fake if networks.fake is not None else 0)
    row_loss = distance * _row_weight(draws, counts, options)
    means = _by_role(rows, row_loss) | {"rcgm_clamped": rows.mean(_share_clamped(error), recursive)}
    loss = rows.weighted(row_loss).sum() / rows.whole.total
    if rectifies:
        pair = _real_and_fake(networks, batch.conditioning[: counts.one_step], renoised, v_real, draws)
        rows_lost, rectify_means = _rectification(rows, one_step, *pair, options)
        rows_lost = rows.weighted(rows_lost, slice(0, counts.one_step))
        loss = loss + options.rectify_weight * (rows_lost.sum() / rows.whole.one_step)
        means |= rectify_means
    return StepLoss(loss, means)


def _predict(
    networks: Networks, batch: Batch, draws: StepDraws, counts: RoleCounts, options: FinetuneParams
) -> tuple[Batch, Tensor]:
    """The batch with its fakes, and F of every row with its gradient."""
    if options.fakes == "shared" and counts.one_step and counts.fake:
        batch, first = with_shared_fakes(networks.online, batch, draws, counts)
        return batch, torch.cat([first, _velocities(networks, batch, draws, counts, counts.one_step)])
    # A rectified row starts from pure noise and follows its own image alone, so that nothing reads its x.
    unread = counts.one_step if options.one_step_target == "rectified" else 0
    batch = with_fakes(networks.online, batch, draws, unread)
    return batch, _velocities(networks, batch, draws, counts, 0)


def _velocities(networks: Networks, batch: Batch, draws: StepDraws, counts: RoleCounts, first: int) -> Tensor:
    """F of the rows from `first` on; of fake rows at -t, or their own network's velocity at t."""
    x_t = interpolate(batch.x[first:], draws.z[first:], draws.t[first:])
    t, r, conditioning = draws.t[first:], draws.r[first:], batch.conditioning[slice(first, counts.total)]
    if networks.fake is None or not counts.fake:
        return networks.online(x_t, t, r, conditioning)
    real = len(t) - counts.fake
    fake = networks.fake(x_t[real:], -t[real:], None, conditioning[slice(real, len(t))])
    if not real:
        return fake
    return torch.cat([networks.online(x_t[:real], t[:real], r[:real], conditioning[:real]), fake])


def _renoised(one_step: Tensor, draws: StepDraws) -> Tensor:
    return renoised_image(one_step.detach(), draws.z[: len(one_step)], draws.rectify_z, draws.rectify_t)


def _real_velocities(
    networks: Networks,
    batch: Batch,
    x_t: Tensor,
    renoised: Tensor,
    draws: StepDraws,
    counts: RoleCounts,
    options: FinetuneParams,
) -> tuple[Tensor, Tensor | None]:
    """v* of the rows of the positive branch, and the base's velocity at the re-noised images, in one call of it.

    v* is guided where 0 < t < 1, and plain z - x at t = 1 and without guidance. Without a base the second is None.
    """
    real = counts.total - counts.fake
    guided = slice(counts.one_step, real if options.guidance > 0 else counts.one_step)
    v = flow_matching_target(batch.x[:real], draws.z[:real])
    x_g, t_g = x_t[guided], draws.t[guided]
    if networks.base is None:
        v_g, v_real = guided_velocity(networks, batch, x_g, v[guided], t_g, guided, options.guidance), None
    else:
        first = len(renoised)
        asked, times = torch.cat([renoised, x_g]), torch.cat([draws.rectify_t[:first], t_g])
        rows = slice(guided.start - first, guided.stop)
        both = base_velocity(networks, batch, asked, times, rows, options.guidance) if len(asked) else asked
        v_real, v_g = both[:first], both[first:]
    return torch.cat([v[: guided.start], v_g, v[guided.stop :]]), v_real


def _real_targets(
    networks: Networks,
    batch: Batch,
    x_t: Tensor,
    v_star: Tensor,
    prediction: Tensor,
    draws: StepDraws,
    counts: RoleCounts,
    options: FinetuneParams,
) -> tuple[Tensor, Tensor, Tensor]:
    """Targets of the rows of the positive branch; which of them are recursive, and eq. 1's error of those."""
    kept = _recursive_rows(counts, options).to(x_t.device)
    if len(kept) == 0:
        return v_star, kept, v_star[kept]
    conditioning = batch.conditioning[kept]
    target = v_star.clone()
    target[kept], error = rcgm_target(
        lambda x_i, t_i, r_i: networks.averaged(x_i, t_i, r_i, conditioning),
        prediction[kept],
        x_t[kept],
        draws.t[kept],
        draws.r[kept],
        v_star[kept],
        options.order,
        options.delta,
    )
    return target, kept, error


def _recursive_rows(counts: RoleCounts, options: FinetuneParams) -> Tensor:
    """The numbers of the rows that have a consistency target."""
    one_step, near, any_ = torch.arange(counts.total - counts.fake).split(
        [counts.one_step, counts.near, counts.any]
    )
    kept = [one_step] if options.one_step_target == "recursive" else []
    return torch.cat([*kept, *([near] if options.near_target == "recursive" else []), any_])


def _rectification(
    rows: MicroBatch, one_step: Tensor, v_real: Tensor, v_fake: Tensor, options: FinetuneParams
) -> tuple[Tensor, dict[str, RowMean]]:
    """d(F(z, 1, 0), sg[F(z, 1, 0) + Delta_v]) of each re-noised one-step sample (eq. 7 and 9)."""
    here = slice(0, len(one_step))
    target, difference = rectification_target(
        one_step.detach(), rows.draws.z[here], rows.draws.rectify_z, v_real, v_fake, options.rectify_target
    )
    distance = squared_error(one_step, target)
    rows_lost = robust(distance) if options.rectify_target == "clamped" else distance
    return rows_lost, {
        "rectify": rows.mean(rows_lost, here),
        "velocity_difference": rows.mean(difference.square().flatten(1).mean(dim=1).sqrt(), here),
        "rectify_clamped": rows.mean(_share_clamped(difference), here),
    }


@torch.no_grad()
def _real_and_fake(
    networks: Networks, conditioning: Conditioning, renoised: Tensor, v_real: Tensor | None, draws: StepDraws
) -> tuple[Tensor, Tensor]:
    """Both velocities of eq. 7; without the base's, the real one is the online network's, which has learnt guidance."""
    t = draws.rectify_t
    if v_real is None:
        twice = Conditioning.cat([conditioning, conditioning])
        signed = torch.cat([t, -t])
        v_real, v_fake = networks.online(renoised.repeat(2, 1, 1, 1), signed, signed, twice).chunk(2)
        return v_real, v_fake
    if networks.fake is not None:
        return v_real, networks.fake(renoised, t, None, conditioning)
    return v_real, networks.online(renoised, -t, -t, conditioning)


def _share_clamped(difference: Tensor) -> Tensor:
    """The share of each row's elements that a clamp holds, [B]."""
    return (difference.abs() >= CLAMP).double().flatten(1).mean(dim=1)


def _distance(prediction: Tensor, target: Tensor, own: int) -> Tensor:
    """d of each row, [B]: robust, but squares in the last `own` rows, those of the fakes' own network.

    The fakes' velocity is random given x_t, and eq. 7 asks for its mean, which is the optimum of squares alone: where
    images of two kinds pass through x_t, the robust distance leans to the more frequent kind.
    """
    mse = squared_error(prediction, target)
    shared = len(mse) - own
    return torch.cat([robust(mse[:shared]), mse[shared:]])


def _row_weight(draws: StepDraws, counts: RoleCounts, options: FinetuneParams) -> Tensor:
    weight = time_weight(draws.t, draws.r)
    weight[counts.total - counts.fake :] = options.adversarial_weight
    if options.one_step_target == "rectified":
        weight[: counts.one_step] = 0.0
    return weight


def _by_role(rows: MicroBatch, row_loss: Tensor) -> dict[str, RowMean]:
    """The mean loss of each role's rows that count."""
    means: dict[str, RowMean] = {}
    first = 0
    for role in ROLES:
        here = slice(first, first + getattr(rows.counts, role))
        means[f"loss_{role}"] = rows.mean(row_loss[here], here)
        first = here.stop
    return means
