"""A version's way to champion: its stages, what was seen at each, and the file that serving follows.

    candidate ─► shadow ─► canary 1 % ─► 10 % ─► 25 % ─► 50 % ─► champion        from each: ─► rolled back

The stage stands in the registry, as tags of the version. `experiments` judges what it sees (`Evidence`, an outcome
row), `training` moves the tags, `infra` makes serving follow them (`Rollout`, a file beside the served model).
"""

from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from recsys.assignment import assign
from recsys.errors import UnusableInput
from recsys.schemas import Identifier
from recsys.settings import Settings

CHECK_EVIDENCE = "candidate_evidence"
"""Outcome of station `experiments`, subject `<version>/<stage>`; its detail is an `Evidence`."""
CHECK_SHADOW = "candidate_shadow"
"""Outcome of station `infra`, subject the version; its detail is a `ShadowCount`."""
CHECK_MOVE = "promotion"
"""Outcome of station `training`, subject `<version>/<stage it moved to>`."""
CHECK_LIVE_QUALITY = "live_quality"
"""Outcome of station `monitoring` about the champion; a warning's detail says `at` and the relative `fall`."""
CHECK_RETRAINING = "retraining"
"""Outcome of station `training`: whether to train anew, and why."""


class Stage(StrEnum):
    """Where a version is on its way."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    CANARY_1 = "canary_1"
    CANARY_10 = "canary_10"
    CANARY_25 = "canary_25"
    CANARY_50 = "canary_50"
    CHAMPION = "champion"
    ROLLED_BACK = "rolled_back"

    @property
    def share(self) -> float:
        """Share of the champion's units that get the version while it is under way."""
        return SHARES.get(self, 0.0)

    @property
    def is_under_way(self) -> bool:
        return self in WAY[:-1]

    @property
    def is_served(self) -> bool:
        """Whether serving holds the version beside the champion."""
        return self in WAY[1:-1]

    @property
    def following(self) -> "Stage":
        """The next stage; only of one that is under way."""
        return WAY[WAY.index(self) + 1]


WAY = tuple(stage for stage in Stage if stage is not Stage.ROLLED_BACK)
SHARES = {Stage.CANARY_1: 0.01, Stage.CANARY_10: 0.10, Stage.CANARY_25: 0.25, Stage.CANARY_50: 0.50}


class _Stated(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Candidacy(_Stated):
    """A version that is or was on its way, as its tags in the registry say."""

    version: Identifier
    run_id: str = ""
    stage: Stage
    against: str = Field("", description="the champion with which it is compared; empty until the shadow begins")
    entered_at: AwareDatetime = Field(description="when it came to this stage")
    live_at: AwareDatetime | None = Field(None, description="when serving confirmed this stage; evidence begins there")
    why: str = Field("", description="why it came to this stage")


class ShadowCount(_Stated):
    """What a version did with copies of real requests."""

    version: Identifier
    answered: int = Field(0, ge=0)
    failed: int = Field(0, ge=0)
    dropped: int = Field(0, ge=0, description="copies for which there was no room; the champion's answers come first")
    shared_items: int = Field(0, ge=0, description="items of its lists that the champion's held too")
    items: int = Field(0, ge=0)


class Evidence(_Stated):
    """What was seen of a version at one stage since serving confirmed it, beside the champion of the same time."""

    version: Identifier
    against: str
    stage: Stage
    live_at: AwareDatetime
    candidate_users: int = Field(0, ge=0)
    champion_users: int = Field(0, ge=0)
    crossed_users: int = Field(0, ge=0, description="saw both, and are left out")
    bots: int = Field(0, ge=0)
    sample_ratio_p: float = Field(1.0, ge=0, le=1, description="always valid; small: the users are not dealt as told")
    champion_rate: float | None = Field(None, description="clicks by impressions")
    difference: float | None = Field(None, description="of clicks by impressions; null with too few users")
    harm_high: float | None = Field(None, description="upper end of the always-valid interval at α .05")
    gain_low: float | None = Field(None, description="lower end of the always-valid interval at α .01")
    harmed: tuple[str, ...] = Field((), description="guardrail metrics whose always-valid interval lies below zero")
    shadow: ShadowCount | None = None

    def is_about(self, candidacy: Candidacy) -> bool:
        """Whether it was seen at this very stage, not at an earlier one or beside another champion."""
        mine = candidacy.version, candidacy.against, candidacy.stage, candidacy.live_at
        return (self.version, self.against, self.stage, self.live_at) == mine


class Rollout(_Stated):
    """What serving holds beside the champion now."""

    version: Identifier
    stage: Stage
    share: float = Field(ge=0, le=0.5)

    @classmethod
    def of(cls, candidacy: Candidacy) -> Self:
        return cls(version=candidacy.version, stage=candidacy.stage, share=candidacy.stage.share)

    def takes(self, unit: str) -> bool:
        """Whether this unit gets the version. Who gets it at a small share gets it at every larger one."""
        key = f"promotion-{self.version}"
        return (
            self.share > 0 and assign(unit, key, {"candidate": self.share, "champion": 1 - self.share}) == "candidate"
        )


def rollout_file(settings: Settings) -> Path:
    """Return where the rollout stands: beside the served model, reached in the same way."""
    return settings.var_dir / "serving" / "rollout.json"


def candidate_folder(settings: Settings) -> Path:
    """Return the link to the bundle that serving holds beside the champion's."""
    return settings.var_dir / "serving" / "candidate"


def beside_folder(settings: Settings) -> Path:
    """Return the folder of the bundles that are there to be compared with the served one, one a version."""
    return settings.var_dir / "serving" / "beside"


def read_rollout(path: Path) -> Rollout | None:
    """Return what serving shall hold beside the champion; None where nothing.

    Raises:
        UnusableInput: the file is not what `infra` writes.
    """
    try:
        return Rollout.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise UnusableInput("rollout", path, f"It cannot be read ({error}); delete it, infra writes it anew") from error


def write_rollout(path: Path, rollout: Rollout | None) -> None:
    """Replace the file in one step, or remove it."""
    if rollout is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(rollout.model_dump_json(indent=2) + "\n")
    fresh.replace(path)


def as_detail(stated: BaseModel) -> dict[str, Any]:
    """Return a statement as an outcome's detail."""
    return stated.model_dump(mode="json")
