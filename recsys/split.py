"""Who gets what, now: the declared experiments of the list layer as a function from a unit to a variant.

What was decided while they run (a variant was stopped, shares were moved) stands in a small file beside the served
model, written by `experiments` and read by serving, as a deployment is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.artifacts import ALIAS_CHAMPION, EXPERIMENT_SALT
from recsys.assignment import BUCKETS, assign, bucket
from recsys.errors import UnusableInput
from recsys.experiments import HOLDOUT, LIST_LAYER, POLICIES, Declaration, read_declaration
from recsys.settings import Settings


class Stop(BaseModel):
    """A variant that was taken from its users; they get the control from then on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stopped_at: datetime
    """Exposures from here on are not its own any more."""
    reason: str


class Decided(BaseModel):
    """What was decided about one running experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stopped: dict[str, Stop] = Field(default_factory=dict)
    shares: dict[str, float] | None = None
    """Shares in place of the declared ones (Thompson sampling)."""


class Decisions(BaseModel):
    """Decisions by experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiments: dict[str, Decided] = Field(default_factory=dict)

    def of(self, experiment: str) -> Decided:
        return self.experiments.get(experiment, Decided())


@dataclass(frozen=True)
class Assignment:
    """What one unit gets."""

    variant: str
    policy: str
    propensity: float
    """Share of all units that get this variant."""
    experiment: str = ""
    """Empty: it takes part in none."""


@dataclass(frozen=True)
class Running:
    """An experiment of the list layer, with what was decided about it."""

    name: str
    shares: Mapping[str, float]
    """Variant → share of the experiment's units, as dealt."""
    policies: Mapping[str, str]
    control: str
    stopped: frozenset[str] = frozenset()
    buckets: tuple[int, int] = (0, BUCKETS)
    starts_on: date = date.min
    ends_on: date = date.max

    def variant_of(self, unit: str) -> str:
        """Return the variant of a unit that takes part; a stopped variant's units get the control."""
        dealt = assign(unit, self.name, self.shares)
        return self.control if dealt in self.stopped else dealt

    def share_of(self, variant: str) -> float:
        """Return the share of the experiment's units that get this variant now."""
        if variant in self.stopped:
            return 0.0
        inherited = sum(self.shares[stopped] for stopped in self.stopped) if variant == self.control else 0.0
        return self.shares[variant] + inherited

    @property
    def traffic(self) -> float:
        return (self.buckets[1] - self.buckets[0]) / BUCKETS


@dataclass(frozen=True)
class Split:
    """The list layer."""

    experiments: tuple[Running, ...]
    holdout: float = 0.0
    holdout_key: str = HOLDOUT

    def of(self, unit: str, day: date) -> Assignment:
        """Return what this unit gets on this day: the holdout first, then the experiment of its bucket, else the
        champion."""
        taking_part = 1 - self.holdout
        if self.holdout and assign(unit, self.holdout_key, {HOLDOUT: self.holdout, "": taking_part}) == HOLDOUT:
            return Assignment(HOLDOUT, ALIAS_CHAMPION, self.holdout)
        running = [one for one in self.experiments if one.starts_on <= day < one.ends_on]
        place = bucket(unit, LIST_LAYER)
        for one in running:
            if one.buckets[0] <= place < one.buckets[1]:
                variant = one.variant_of(unit)
                propensity = taking_part * one.traffic * one.share_of(variant)
                return Assignment(variant, one.policies[variant], propensity, one.name)
        return Assignment(ALIAS_CHAMPION, ALIAS_CHAMPION, taking_part * (1 - sum(one.traffic for one in running)))

    def variants(self, day: date) -> dict[str, float]:
        """Return every variant that somebody gets on this day, with its share of all units."""
        taking_part, found = 1 - self.holdout, {HOLDOUT: self.holdout}
        running = [one for one in self.experiments if one.starts_on <= day < one.ends_on]
        for one in running:
            for variant in one.shares:
                share = taking_part * one.traffic * one.share_of(variant)
                found[variant] = found.get(variant, 0.0) + share
        outside = taking_part * (1 - sum(one.traffic for one in running))
        found[ALIAS_CHAMPION] = found.get(ALIAS_CHAMPION, 0.0) + outside
        return {variant: share for variant, share in found.items() if share > 0}

    def policy_of(self, variant: str) -> str:
        """Return the policy that answers a variant: the champion's, unless an experiment names another."""
        policies = (one.policies[variant] for one in self.experiments if variant in one.policies)
        return next(policies, ALIAS_CHAMPION)

    @classmethod
    def by_weights(cls, weights: Mapping[str, float]) -> "Split":
        """Return one experiment over all units with these shares; a variant's policy is the one of its name, or the
        champion's where there is none.

        Raises:
            UnusableInput: the shares are empty, negative or do not sum to one.
        """
        try:
            assign("", EXPERIMENT_SALT, weights)
        except ValueError as error:
            raise UnusableInput("RECSYS_VARIANT_WEIGHTS", error, "Give each variant its share of one") from error
        policies = {name: name if name in POLICIES else ALIAS_CHAMPION for name in weights}
        return cls((Running(EXPERIMENT_SALT, dict(weights), policies, control=next(iter(weights))),))

    @classmethod
    def by_declaration(cls, declaration: Declaration, decisions: Decisions) -> "Split":
        """Return the declared experiments of the list layer with what was decided about them."""
        running = []
        for one in declaration.experiments:
            if one.layer == LIST_LAYER:
                decided = decisions.of(one.name)
                running.append(
                    Running(
                        one.name, decided.shares or one.shares, one.policies, one.control, frozenset(decided.stopped),
                        one.buckets, one.starts_on, one.ends_on or date.max,
                    )
                )  # fmt: skip
        return cls(tuple(running), declaration.holdout, declaration.holdout_key)


def live_split(settings: Settings) -> Split:
    """Return the split of live traffic as these settings, the declaration and the decisions say.

    Raises:
        UnusableInput: the declaration or the decisions cannot be used.
    """
    if settings.variant_weights:
        return Split.by_weights(settings.variant_weights)
    return Split.by_declaration(read_declaration(settings.experiments_file), read_decisions(decisions_file(settings)))


def decisions_file(settings: Settings) -> Path:
    """Return where decisions stand: beside the served model, reached in the same way."""
    return settings.var_dir / "serving" / "experiments.json"


def read_decisions(path: Path) -> Decisions:
    """Return what was decided; nothing where nothing was.

    Raises:
        UnusableInput: the file is not what `experiments` writes.
    """
    try:
        return Decisions.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Decisions()
    except (OSError, ValidationError) as error:
        raise UnusableInput("experiments' decisions", path, f"It cannot be read ({error}); delete it") from error


def write_decisions(path: Path, decisions: Decisions) -> None:
    """Replace the file in one step, so that a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(decisions.model_dump_json(indent=2) + "\n")
    fresh.replace(path)
