"""What training a reward model has made, and what is known of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from palate.models.manifest import Calibration
from trainer.fit import Fitted
from trainer.reward_model.adapters import AdaptersReport
from trainer.reward_model.annotators import AnnotatorReport
from trainer.reward_model.calibrate import Sureness
from trainer.reward_model.evaluate import Evaluation
from trainer.reward_model.learning_curve import LearningCurve
from trainer.reward_model.members import MembersReport
from trainer.reward_model.splits import DataCounts


@dataclass(frozen=True, slots=True)
class RewardResult:
    """What training has made.

    Attributes:
        model_folder: The reward model, ready to be served; of an ensemble, the folder that names its members.
        fitted: Steps and losses.
        data: How many comparisons were used, and how.
        evaluation: On held-out groups; of an ensemble, by the mean of its members' scores, as all that follows.
        calibration: Of the scores of held-out completions.
        logit_scale: Factor that makes differences probabilities.
        new_head: Whether the head was made for this run.
        sureness: How far these probabilities can be believed.
        annotators: Who cast the votes that were learnt from.
        learning_curve: Of a bag of words on the same labels; None where there is too little data for one.
        members: How the members of an ensemble differ; None for a single model.
        adapters: Through which it learnt; None where all weights did.
    """

    model_folder: Path
    fitted: Fitted
    data: DataCounts
    evaluation: Evaluation
    calibration: Calibration
    logit_scale: float
    new_head: bool
    sureness: Sureness | None
    annotators: tuple[AnnotatorReport, ...]
    learning_curve: LearningCurve | None
    members: MembersReport | None = None
    adapters: AdaptersReport | None = None

    def summary(self) -> str:
        """What a person wants to know first, a line each."""
        shares = [
            (name.replace("_", " "), getattr(self.evaluation, name)) for name in self.evaluation.__dataclass_fields__
        ]
        lines = [
            f"  {name:<13} {share.value:.3f}  [{share.low:.3f}, {share.high:.3f}]  n = {share.count}"
            for name, share in shares
            if share is not None
        ]
        return "\n".join((f"{self.model_folder}: accuracy on held-out pairs", *lines, *self._remarks()))

    def _remarks(self) -> list[str]:
        """What was left out, and whom to look at."""
        counts = {name.replace("_", " "): count for name, count in asdict(self.data.left_out).items() if count}
        suspects = [row.name for row in self.annotators if row.suspected()]
        lines = [", ".join(f"{count} {name}" for name, count in counts.items())] if counts else []
        lines = [f"  left out: {line}" for line in lines]
        if (members := self.members) is not None:
            alone = ", ".join(f"{share.value:.3f}" for share in members.accuracies if share is not None)
            lines.append(f"  members alone: {alone}; they disagree by {members.disagreement:.2f} standard deviations")
        if (adapters := self.adapters) is not None:
            lines.append(
                f"  learnt through adapters (LoRA): rank {adapters.rank} on {adapters.layers} layers, "
                f"{adapters.trained} parameters, {adapters.share:.2%} of the model's"
            )
        if suspects:
            lines.append(f"  suspected: {len(suspects)} of {len(self.annotators)} annotators; card.html says which")
        return lines
