"""The serving graph as data: the fallback ladder, the stages in their order, and the business rules. A TOML file.

What a list goes through is declared here once; `plan.py` makes it fit a model, `recommend.py` runs it.
"""

import tomllib
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recsys.errors import UnusableInput
from recsys.schemas import Domain, Identifier
from recsys.settings import Settings

PERSONALISED, SESSION, SEGMENT_POPULAR, POPULAR = "personalised", "session", "segment_popular", "popular"
Rung = Literal["personalised", "session", "segment_popular", "popular"]
RUNGS: tuple[Rung, ...] = (PERSONALISED, SESSION, SEGMENT_POPULAR, POPULAR)
"""The fallback ladder, best first."""

RANK, BOOST, DIVERSIFY, EXPOSE, LIMIT, PIN = "rank", "boost", "diversify", "expose", "limit", "pin"
Stage = Literal["rank", "boost", "diversify", "expose", "limit", "pin"]

DEFAULT_FILE = Path(__file__).with_name("graph.toml")


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Which(_Said):
    """Which items a rule is about: those for which everything that is said holds. An item whose price or year nobody
    knows is within no bounds of it."""

    item_ids: tuple[Identifier, ...] | None = None
    domain: Domain | None = None
    categories: tuple[str, ...] | None = Field(None, description="any of them, as the catalogue spells them")
    min_price: float | None = Field(None, ge=0)
    max_price: float | None = Field(None, ge=0)
    min_age_years: int | None = Field(None, ge=0, description="years between publication and the model's data")
    max_age_years: int | None = Field(None, ge=0)
    beyond_most_used: float | None = Field(
        None, gt=0, lt=1, description="those outside this share of the catalogue, the most used of the model's data"
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Which":
        if all(value is None for value in self.model_dump().values()):
            raise ValueError("a rule about all items is a mistake: say which")
        return self


class _Rule(_Said):
    name: Identifier


class Hide(_Rule):
    """These items are not shown."""

    action: Literal["hide"]
    items: Which


class Boost(_Rule):
    """These items' scores move by so many standard deviations of the candidates' scores; down where negative."""

    action: Literal["boost"]
    items: Which
    by: float = Field(ge=-10, le=10)


class Expose(_Rule):
    """These items get at least this share of the exposure of the first places, as long as there are candidates among
    them (recsys/fairness.py); a place is seen as 1 / log2(1 + its rank)."""

    action: Literal["expose"]
    items: Which
    least: float = Field(ge=0, le=1)
    within: int = Field(10, ge=1, le=1000)


class Limit(_Rule):
    """At most so many of these items stand among the first places; those that are too many come behind."""

    action: Literal["limit"]
    items: Which
    most: int = Field(ge=0)
    within: int = Field(10, ge=1, le=1000)


class Pin(_Rule):
    """This item stands at this rank, wherever it may be shown and was not seen."""

    action: Literal["pin"]
    item_id: Identifier
    rank: int = Field(ge=1, le=1000)


Hour = Annotated[int, Field(ge=0, le=24)]
Rule = Annotated[Hide | Boost | Expose | Limit | Pin, Field(discriminator="action")]


class Context(_Said):
    """Where and when a list is asked for, and rules that hold only then, behind the others. All of it must fit."""

    name: Annotated[str, Field(pattern="^[a-z0-9_-]{1,32}$")]
    """Part of the keys of stored lists."""
    devices: tuple[Identifier, ...] | None = Field(None, description="any of them, as requests name them")
    locations: tuple[Identifier, ...] | None = Field(None, description="any of them, as requests name them")
    hours: tuple[Hour, Hour] | None = Field(None, description="from and to, UTC, without the latter; may pass midnight")
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _says_when(self) -> "Context":
        if self.devices is None and self.locations is None and self.hours is None:
            raise ValueError("a context that always fits is a rule of the graph: say when")
        return self

    def fits(self, device: str | None, location: str | None, hour: int) -> bool:
        """Whether a list asked for on this device, from there, at this hour of the day (UTC) is within the context."""
        if self.devices is not None and device not in self.devices:
            return False
        if self.locations is not None and location not in self.locations:
            return False
        if self.hours is None:
            return True
        first, end = self.hours
        return first <= hour < end if first < end else hour >= first or hour < end


class Retrieve(_Said):
    """How many candidates the stages behind retrieval get; a longer list gets as many as it is long."""

    candidates: int = Field(200, ge=1, le=10_000)


class BySession(_Said):
    """Who speaks on the rung `session`: the model, reading the session as a history, or the items most like those."""

    by: Literal["model", "neighbours"] = "model"


class Rank(_Said):
    """Share of the ranker in the score that orders candidates; the rest is retrieval's. Both on one scale."""

    weight: float = Field(0.5, ge=0, le=1)


class Diversify(_Said):
    """Re-ranking for variety (recsys/diversity.py), by the model's vectors, or by categories where it has none."""

    method: Literal["none", "mmr", "dpp"] = "none"
    trade_off: float = Field(0.8, ge=0, le=1, description="1 looks at scores alone")


class Graph(_Said):
    """The whole declaration."""

    ladder: tuple[Rung, ...] = RUNGS
    stages: tuple[Stage, ...] = (RANK, BOOST, DIVERSIFY, EXPOSE, LIMIT, PIN)
    retrieve: Retrieve = Retrieve()
    session: BySession = BySession()
    rank: Rank = Rank()
    diversify: Diversify = Diversify()
    rules: tuple[Rule, ...] = ()
    contexts: tuple[Context, ...] = ()
    """The first that fits a request counts; none: the rules above alone."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "Graph":
        if not self.ladder or self.ladder[-1] != POPULAR:
            raise ValueError("the ladder must end with `popular`, which can always answer")
        names = [rule.name for rule in self.rules]
        for what, values in (("ladder", self.ladder), ("stages", self.stages), ("rules' names", names)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what}: one stands there twice")
        pinned = [rule.rank for rule in self.rules if isinstance(rule, Pin)]
        if len(set(pinned)) != len(pinned):
            raise ValueError("two pins for one rank")
        missing = {rule.action for rule in self.rules} - {"hide", *self.stages}
        if missing:
            raise ValueError(f"rules of a stage that is not among the stages: {', '.join(sorted(missing))}")
        if len({context.name for context in self.contexts}) != len(self.contexts):
            raise ValueError("contexts' names: one stands there twice")
        for context in self.contexts:
            self.within(context)
        return self

    def within(self, context: Context) -> "Graph":
        """Return the declaration that holds in a context.

        Raises:
            ValueError: the context's rules contradict the others.
        """
        return Graph(**{name: getattr(self, name) for name in type(self).model_fields} | {
            "rules": (*self.rules, *context.rules), "contexts": (),
        })  # fmt: skip

    @property
    def digest(self) -> str:
        """What tells one declaration from another, in 16 letters."""
        return blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()


def graph_file(settings: Settings) -> Path:
    """Return where the declaration stands."""
    return settings.graph_file or DEFAULT_FILE


def graph_state(path: Path) -> object:
    """Return what tells one state of the file from another; None while there is none."""
    try:
        status = path.stat()
    except OSError:  # being replaced at this moment
        return None
    return str(path.resolve()), status.st_mtime_ns, status.st_size


def read_graph(path: Path) -> Graph:
    """Return the declaration.

    Raises:
        UnusableInput: it is missing, no TOML, or says something that no graph is.
    """
    try:
        return Graph.model_validate(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:  # TOML's and pydantic's errors are ValueErrors
        said = error.errors()[0] if isinstance(error, ValidationError) else error
        raise UnusableInput("serving graph", path, f"It cannot be used ({said}); see docs/serving_graph.md") from error
