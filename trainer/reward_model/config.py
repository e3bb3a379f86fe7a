"""Configuration of reward-model training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from palate.hub import is_on_hub
from trainer.fit_config import FitConfig
from trainer.reward_model.lora_config import RewardLoraGroup

ENSEMBLE_CENTRING = 0.01
"""Weight of the centring penalty where there are members and nobody says another."""

_SEEDS_APART = 1000
"""Between the seeds of two members, so that runs with neighbouring seeds share no member."""

LabelRule: TypeAlias = Literal["votes", "soft", "majority", "dawid-skene"]
AnnotatorRule: TypeAlias = Literal["ignore", "reliability"]


class RewardTrainConfig(FitConfig):
    """Trains a reward model on comparisons (Bradley–Terry) and measures it on groups it has not seen."""

    phase = "reward"

    model: Path = Field(
        description="Folder to start from: a causal language model, an encoder, or a reward model to train further."
    )
    data: Path = Field(
        description="JSONL, JSONL.gz, Parquet, a folder that `datasets` reads, or hub:org/name@revision; of several "
        'splits one, as FOLDER:train or hub:org/name:train. A row is {"prompt", "a", "b", "label"}, {"prompt", '
        '"chosen", "rejected"} or {"prompt", "a", "b", "votes": [{"annotator", "vote"}, ...]}.'
    )
    group_by: str = Field(
        default="group",
        min_length=1,
        description='Key of what must not be on both sides of a split; rows without "group" go by their prompt.',
    )
    held_out: Path | None = Field(
        default=None,
        description="Comparisons to measure on, in the same forms; none = whole groups are taken out of the data.",
    )
    held_out_share: float = Field(
        default=0.1, gt=0, lt=1, description="Share of the data that is taken out where no held-out file is given."
    )
    template: Literal["auto", "chat", "pair", "join"] = Field(
        default="auto",
        description='Prompt and completion as "chat" template, encoder "pair", or joined text; "auto" = what fits.',
    )
    max_tokens: int = Field(default=0, ge=0, description="Longest input in tokens; 0 = the model's limit.")
    truncation: Literal["reject", "left", "right"] = Field(
        default="reject", description="Longer inputs: leave the comparison out, cut the oldest or the newest tokens."
    )
    ties: Literal["soft", "drop"] = Field(
        default="soft", description='Ties: learn them as a preference of one half ("soft"), or leave them out.'
    )
    labels: LabelRule = Field(
        default="votes",
        description='What a model learns of a pair: every vote ("votes"), the share of votes, each pair counting '
        'once ("soft"), what most say ("majority"), or what is left after annotators\' errors ("dawid-skene").',
    )
    annotators: AnnotatorRule = Field(
        default="ignore",
        description='"reliability" learns how reliable each annotator is together with the scores (Crowd-BT).',
    )
    prior_right: float = Field(
        default=4.0, gt=1, description="With it: Beta prior of every reliability, right votes + 1."
    )
    prior_wrong: float = Field(default=2.0, gt=1, description="The same, wrong votes + 1; fewer than the right ones.")
    margin: float = Field(
        default=0.0, ge=0, description="By how much the preferred one should win, where a row has no margin."
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="Share of labels taken to be wrong.")
    centring: float | None = Field(
        default=None,
        ge=0,
        description="Weight of the penalty that keeps scores around 0; default: 0, with members 0.01.",
    )
    members: int = Field(
        default=1, ge=1, le=16, description="Models of an ensemble that is served under one name; 1 = a single model."
    )
    shared_backbone: bool = Field(
        default=False,
        description="Members are heads of one backbone: cheaper to train and to serve, and closer to each other.",
    )
    bootstrap: bool = Field(
        default=False, description="Each member learns from a draw of its own of the groups, with replacement."
    )
    member_models: list[Path] = Field(
        default=[],
        description="Further folders to start from, with the tokenizer of --model: members start from --model and "
        "these in turn. Models that were pretrained apart are wrong apart.",
    )
    patience: int = Field(
        default=0, ge=0, description="Epochs without a lower loss on a part of the training data; 0 = to the end."
    )
    target_accuracy: float = Field(
        default=0.75, gt=0.5, lt=1, description="The model card estimates how many labels give this accuracy."
    )
    samples: int = Field(default=4, ge=0, le=100, description="Held-out comparisons that are shown at the end.")
    batch_size: int = Field(default=16, ge=1, description="Comparisons a step.")
    learning_rate: float = Field(default=5e-5, gt=0, description="Peak of the learning rate (AdamW).")
    lora: RewardLoraGroup = RewardLoraGroup()

    @property
    def heads(self) -> int:
        """Scores that one model gives."""
        return self.members if self.shared_backbone else 1

    def centring_weight(self) -> float:
        """Members are averaged and compared, so what Bradley–Terry leaves open must not be where they differ."""
        if self.centring is not None:
            return self.centring
        return ENSEMBLE_CENTRING if self.members > 1 else 0.0

    @property
    def starts(self) -> tuple[Path, ...]:
        """Folders that members start from, in turn."""
        return (self.model, *self.member_models)

    def member(self, number: int) -> Self:
        """How member `number` (from 0) of several models is trained; the first has the run's own seed and model."""
        changes = {
            "model": self.starts[number % len(self.starts)],
            "member_models": [],
            "out": self.out / f"member-{number + 1}",
            "seed": (self.seed + _SEEDS_APART * number) % 2**31,
            "centring": self.centring_weight(),
            "members": 1,
        }
        return self.model_copy(update=changes)

    def given(self) -> dict[str, Path]:
        """Comparisons to learn from and to measure on, by the names of the options."""
        given = {"data": self.data, "held_out": self.held_out}
        return {name: source for name, source in given.items() if source is not None}

    def sources(self) -> dict[str, str]:
        """The same as the report has them: no folders of this machine."""
        return {name: str(source) if is_on_hub(source) else source.name for name, source in self.given().items()}

    def start_names(self) -> list[str]:
        """Of the folders that members start from, for card and report; of a run's `model`, the run's with it."""
        return ["/".join(start.parts[-2:] if start.name == "model" else start.parts[-1:]) for start in self.starts]

    def loss(self) -> dict[str, Any]:
        """What is said of labels and loss, for the report."""
        names = ("labels", "annotators", "ties", "margin", "label_smoothing")
        prior = ("prior_right", "prior_wrong") if self.annotators == "reliability" else ()
        several = ("members", "shared_backbone", "bootstrap") if self.members > 1 else ()
        told = {name: getattr(self, name) for name in (*names, *prior, *several)}
        told |= {"starts": ", ".join(self.start_names())} if self.member_models else {}
        return told | {"centring": self.centring_weight()}

    @model_validator(mode="after")
    def _one_held_out(self) -> Self:
        if self.held_out is not None and "held_out_share" in self.model_fields_set:
            raise ValueError(
                "held_out_share has no effect with held_out, which says what is measured on: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _members_there(self) -> Self:
        asked = [name for name in ("shared_backbone", "bootstrap", "member_models") if getattr(self, name)]
        if asked and self.members == 1:
            raise ValueError(f"{', '.join(asked)} has no effect without members; say how many with members")
        if self.member_models and self.shared_backbone:
            raise ValueError("member_models and shared_backbone exclude each other: one backbone starts from one model")
        if len({start.resolve() for start in self.starts}) < len(self.starts):
            raise ValueError("model and member_models name a folder twice: members start from them in turn anyway")
        if len(self.starts) > self.members:
            raise ValueError(
                f"{len(self.starts)} models to start from, model among them, are more than {self.members} members: ask "
                "for more members, or leave out some of member_models"
            )
        if self.shared_backbone and self.annotators == "reliability":
            raise ValueError(
                "shared_backbone and annotators reliability exclude each other: votes are weighed by one score of a "
                "pair. Train several models instead, which cost more"
            )
        return self

    @model_validator(mode="after")
    def _one_model_of_noise(self) -> Self:
        names = ("labels", "margin", "label_smoothing")
        changed = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
        if self.annotators == "reliability" and changed:
            raise ValueError(
                f"annotators reliability excludes {', '.join(changed)}: it learns from single votes, without margins, "
                "and how often they are wrong itself"
            )
        return self

    @model_validator(mode="after")
    def _anchored(self) -> Self:
        prior = (self.prior_right, self.prior_wrong)
        if self.annotators == "ignore" and prior != tuple(
            type(self).model_fields[name].default for name in ("prior_right", "prior_wrong")
        ):
            raise ValueError(
                "prior_right and prior_wrong have no effect without annotators reliability: leave them out"
            )
        if self.prior_right <= self.prior_wrong:
            raise ValueError(
                f"prior_right {self.prior_right} must be above prior_wrong {self.prior_wrong}: with all scores and all "
                "reliabilities turned around votes are as likely, and nothing else says which is meant"
            )
        return self
