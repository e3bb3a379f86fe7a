"""What training a reward model has made, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from palate.models.manifest import Calibration
from trainer.fit import Fitted
from trainer.reward_model.adapters import AdaptersReport
from trainer.reward_model.annotators import AnnotatorReport
from trainer.reward_model.bootstrap import FEWEST_GROUPS
from trainer.reward_model.calibrate import Sureness
from trainer.reward_model.evaluate import Evaluation, Share
from trainer.reward_model.learning_curve import LearningCurve
from trainer.reward_model.members import MembersReport
from trainer.reward_model.splits import DataCounts, LeftOut, Usage


def told_groups(evaluation: Evaluation) -> str:
    """What intervals over comparisons do not say, where several are of one group; empty where none are."""
    if not evaluation.clustered:
        return ""
    count = evaluation.groups
    of = "one group" if count == 1 else f"{count} groups"
    told = f"intervals are over pairs; these are of {of}, and other groups may differ by more"
    return f"{told} (over groups: a bootstrap of whole ones)" if count >= FEWEST_GROUPS else told


def told_left_out(left_out: LeftOut) -> str:
    """What was not used, by why; empty where everything was."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(left_out).items() if count)


def _unused(data: DataCounts) -> Iterator[str]:
    """What was left out, and what was merged, of the data and of a file that was held out."""
    for usage, of in (
        (Usage(data.left_out, data.duplicates, data.unread), ""),
        (data.held_out_file, " of the held-out file"),
    ):
        if usage is not None and (told := told_left_out(usage.left_out)):
            yield f"left out{of}: {told}"
        if usage is not None and usage.duplicates:
            yield f"merged{of}: {usage.duplicates} duplicates, votes that an annotator cast again, kept in their pairs"
        if usage is not None and usage.unread:
            yield f"not read{of}: {told_unread(usage.unread)}"


def told_unread(keys: Sequence[str]) -> str:
    """That somebody may have been named under a key that is not read."""
    named = ", ".join(map(repr, keys))
    return f"votes without an 'annotator' have {named}: if that says whose they are, call it 'annotator'"


def _line(name: str, share: Share) -> str:
    told = f"{name:<13} {share.value:.3f}  [{share.low:.3f}, {share.high:.3f}]  n = {share.count}"
    ends = share.over_groups
    return f"  {told}" + (f"  over groups [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


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
        shares = self.evaluation.shares().items()
        lines = [_line(name.replace("_", " "), share) for name, share in shares if share is not None]
        return "\n".join((f"{self.model_folder}: accuracy on held-out pairs", *lines, *self._remarks()))

    def _remarks(self) -> list[str]:
        """What the intervals are of, what was left out, and whom to look at."""
        suspects = [row.name for row in self.annotators if row.suspected()]
        lines = [f"  {told}" for told in (told_groups(self.evaluation), *_unused(self.data)) if told]
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
