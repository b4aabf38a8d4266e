"""Experiments as they are declared: who takes part, in which variant, and which policy answers.

    layer        questions that may be asked of one unit at the same time stand in different layers; each layer splits
                 the units independently of the others
    experiment   a range of its layer's buckets; ranges of one layer never overlap while both run: a unit is in at most
                 one experiment of a layer (mutual exclusion)
    variant      a share of the experiment's units, by a digest keyed with the experiment's own name
    holdout      units that take part in nothing and get the default policy, to measure all experiments together

After Tang, Agarwal, O'Brien and Meyer 2010, "Overlapping experiment infrastructure". A unit is a user or a session with
an id; an assignment is a pure function of the unit's id and the declaration, the same in every process.
"""

import tomllib
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from recsys.artifacts import ALIAS_CHAMPION
from recsys.assignment import BUCKETS
from recsys.errors import UnusableInput
from recsys.schemas import Identifier
from recsys.settings import HOME

DECLARED = HOME / "recsys" / "experiments.toml"

POPULAR, SHUFFLE, INTERLEAVED = "popular", "shuffle", "interleaved"
POLICIES = (ALIAS_CHAMPION, POPULAR, SHUFFLE, INTERLEAVED)
"""What serving can answer with: the champion's list, everybody's list, the champion's list in random order, and the
first two in one (recsys/interleaving.py)."""

HOLDOUT = "holdout"
LIST_LAYER = "list"
"""The layer whose variants decide which list is shown; impressions carry its variant."""

SHARES_SUM_TO_ONE_WITHIN = 1e-9

Metric = Literal["click_through_rate", "conversion", "revenue_per_user", "retention"]
Share = Annotated[float, Field(ge=0, le=1)]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Variant(_Declared):
    """A share of the experiment's units, and the policy that answers them."""

    name: Identifier
    share: Share
    policy: str

    @field_validator("name")
    @classmethod
    def _is_not_taken(cls, name: str) -> str:
        if name == HOLDOUT:
            raise ValueError(f"{HOLDOUT!r} is the name of the units that take part in nothing")
        return name

    @field_validator("policy")
    @classmethod
    def _can_be_served(cls, policy: str) -> str:
        if policy not in POLICIES:
            raise ValueError(f"no model answers for {policy!r}; choose among {', '.join(POLICIES)}")
        return policy


class Guardrail(_Declared):
    """A metric that a variant must not harm: once the always-valid interval of its lift lies below `-largest_harm`, the
    variant is stopped (`stop`), or somebody is told (`warn`)."""

    metric: Metric
    largest_harm: float = Field(0.0, ge=0, lt=1, description="relative to the control")
    on_harm: Literal["stop", "warn"] = "stop"


class Experiment(_Declared):
    """One question. Its name keys the digest, so that a new name deals the units anew."""

    name: Annotated[Identifier, Field(max_length=64)]
    layer: Identifier = LIST_LAYER
    question: str = Field(min_length=1)
    starts_on: date
    ends_on: date | None = Field(None, description="first day without it; none: it runs until somebody ends it")
    buckets: tuple[int, int] = Field((0, BUCKETS), description=f"from (inclusive) and to (exclusive), of {BUCKETS}")
    control: Identifier
    primary_metric: Metric = "click_through_rate"
    planned_users: int = Field(
        10_000, ge=100, description="of all variants together; where the always-valid intervals are tightest"
    )
    guardrails: tuple[Guardrail, ...] = ()
    allocation: Literal["fixed", "thompson"] = "fixed"
    variants: tuple[Variant, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"experiment {self.name}: a variant is named twice in {names}")
        total = sum(variant.share for variant in self.variants)
        if abs(total - 1) > SHARES_SUM_TO_ONE_WITHIN:
            raise ValueError(f"experiment {self.name}: the shares of {names} sum to {total:g}, not to one")
        if self.control not in names:
            raise ValueError(f"experiment {self.name}: the control {self.control!r} is none of {names}")
        first, end = self.buckets
        if not 0 <= first < end <= BUCKETS:
            raise ValueError(f"experiment {self.name}: buckets {first} to {end} are no range in 0 to {BUCKETS}")
        if self.ends_on is not None and self.ends_on <= self.starts_on:
            raise ValueError(f"experiment {self.name}: it ends on {self.ends_on}, before it starts")
        return self

    @property
    def shares(self) -> dict[str, float]:
        return {variant.name: variant.share for variant in self.variants}

    @property
    def policies(self) -> dict[str, str]:
        return {variant.name: variant.policy for variant in self.variants}

    @property
    def traffic(self) -> float:
        """Share of its layer's units."""
        return (self.buckets[1] - self.buckets[0]) / BUCKETS

    def runs_on(self, day: date) -> bool:
        return self.starts_on <= day and (self.ends_on is None or day < self.ends_on)

    def meets(self, other: Self) -> bool:
        """Whether a unit could be in both at once."""
        share_days = self.starts_on < (other.ends_on or date.max) and other.starts_on < (self.ends_on or date.max)
        share_buckets = self.buckets[0] < other.buckets[1] and other.buckets[0] < self.buckets[1]
        return self.layer == other.layer and share_days and share_buckets


class Declaration(_Declared):
    """All experiments."""

    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    holdout_key: Annotated[Identifier, Field(max_length=64)] = HOLDOUT
    experiments: tuple[Experiment, ...] = ()

    @model_validator(mode="after")
    def _is_exclusive(self) -> Self:
        names = sorted(experiment.name for experiment in self.experiments)
        for name, following in pairwise(names):
            if name == following:
                raise ValueError(f"two experiments are named {name}; a name keys the digest and is used once")
        for number, one in enumerate(self.experiments):
            for other in self.experiments[number + 1 :]:
                if one.meets(other):
                    raise ValueError(
                        f"experiments {one.name} and {other.name} overlap in layer {one.layer}: buckets {one.buckets} "
                        f"and {other.buckets} on the same days; give them disjoint buckets or different layers"
                    )
        return self

    def running(self, day: date, layer: str = LIST_LAYER) -> tuple[Experiment, ...]:
        """Return the experiments of a layer that run on this day."""
        return tuple(one for one in self.experiments if one.layer == layer and one.runs_on(day))


def read_declaration(path: Path | None = None) -> Declaration:
    """Return the declared experiments; `path` None reads the repository's file.

    Raises:
        UnusableInput: the file is not there, is no TOML, or declares what cannot be run.
    """
    path = path or DECLARED
    try:
        return Declaration.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UnusableInput("experiments", error, f"Write {path.name} as docs/experiments.md shows") from error
    except ValidationError as error:
        raise UnusableInput(
            "experiments", _sentence(error), f"Mend {path.name}; docs/experiments.md shows how"
        ) from error


def _sentence(error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False):
        place = ".".join(str(part) for part in fault["loc"])
        faults.append((f"{place}: " if place else "") + fault["msg"].removeprefix("Value error, "))
    return "; ".join(faults)
