"""A torch model drawn and scored in one setting: shared by base, candidate and second look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.evaluation.generation import Sampler, generate_images
from twinflow_core.evaluation.prompts import Prompt
from twinflow_core.evaluation.samples import Sample
from twinflow_core.evaluation.scoring import Scorer, judge_images
from twinflow_core.params import EvaluateParams


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
