"""A torch model drawn and scored, setting by setting: shared by base, candidate and second look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.evaluation.generation import Sampler, generate_images
from twinflow_core.evaluation.prompts import Prompt
from twinflow_core.evaluation.samples import Sample
from twinflow_core.evaluation.scoring import Scorer, judge_images, make_scorer, setting_metrics
from twinflow_core.image_size import ImageSize
from twinflow_core.params import EvaluateParams

SIZES_KEY = "export.sizes"


@dataclass(frozen=True)
class TorchEvaluation:
    """A model, the prompts it draws, how many images of each, and who scores them."""

    backbone: Backbone
    scorer: Scorer
    prompts: Sequence[Prompt]
    options: EvaluateParams

    def samples(
        self, model: str, setting: str, sampler: Sampler, evaluations: int, label: str
    ) -> list[Sample]:
        """Draw every image of a setting and judge it.

        Args:
            model: `reference` or `candidate`, as samples.parquet names it.
            setting: `nfe1`, .., `many`.
            sampler: draws latents from `evaluations` noises an image.
            evaluations: noises an image.
            label: of the progress bar.
        """
        images = generate_images(
            self.backbone,
            sampler,
            self.prompts,
            evaluations=evaluations,
            images_per_prompt=self.options.images_per_prompt,
            seed=self.options.seed,
            batch_size=self.options.batch_size,
            label=label,
        )
        return judge_images(self.scorer, model, setting, self.prompts, images)

    def settings(
        self, model: str, settings: Mapping[str, tuple[Sampler, int]], label: str
    ) -> tuple[list[Sample], dict[str, dict[str, Any]]]:
        """Draw and judge several settings.

        Args:
            model: as in `samples`.
            settings: the sampler of each, and its noises an image.
            label: of the progress bars; the setting's name follows.

        Returns:
            All samples, and the metrics of each setting.
        """
        samples: list[Sample] = []
        metrics: dict[str, dict[str, Any]] = {}
        for setting, (sampler, evaluations) in settings.items():
            judged = self.samples(model, setting, sampler, evaluations, f"{label}, {setting}")
            metrics[setting] = setting_metrics(self.scorer, judged)
            samples += judged
        return samples, metrics

    def at_size(self, size: ImageSize, prepared: Path) -> TorchEvaluation:
        """The same evaluation at one of `export.sizes`, to which the backbone is set from here on."""
        self.backbone.at_size(size.height, size.width, SIZES_KEY)
        return replace(self, scorer=make_scorer(self.scorer.name, prepared, size))
