"""A control plane in memory that can be told to fail: at a call, before or after the call has had its effect."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from infra.autoscaling import ScalingPolicy
from infra.aws.blueprint import KINDS, PREFIX
from infra.blueprint import State
from infra.targets import Key, Release


class Killed(BaseException):
    """The process dies here; nobody may catch it."""


class MemoryPlane:
    """SageMaker's shape in memory: an endpoint may only name what is there, and what is in use cannot be deleted."""

    def __init__(self) -> None:
        self.there: dict[Key, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        self.log: list[str] = []
        self.before: Callable[[str, Key], None] = lambda verb, key: None
        self.after: Callable[[str, Key], None] = lambda verb, key: None

    def read(self, key: Key) -> dict[str, Any] | None:
        return self.there.get(key)

    def owned(self) -> list[Key]:
        return sorted(self.there, key=lambda key: KINDS.index(key.kind))

    def create(self, key: Key, spec: dict[str, Any]) -> None:
        self._enter("create", key)
        if key in self.there:
            raise FileExistsError(key.name)
        self._check(key, spec)
        self.there[key] = spec
        self.after("create", key)

    def update(self, key: Key, spec: dict[str, Any]) -> None:
        self._enter("update", key)
        assert key in self.there
        self._check(key, spec)
        self.there[key] = spec
        self.after("update", key)

    def delete(self, key: Key) -> None:
        self._enter("delete", key)
        used = [other for other, spec in self.there.items() if key.kind == "endpoint_config"
                and other.kind == "endpoint" and spec["config"] == key.name]  # fmt: skip
        assert not used, f"{key} is in use"
        self.there.pop(key, None)
        self.after("delete", key)

    def serving(self) -> dict[str, int]:
        """Return variant → weight of the endpoint, empty when nothing serves; everything behind it has to be there."""
        endpoint = self.there.get(Key("endpoint", PREFIX))
        if endpoint is None:
            return {}
        config = self.there[Key("endpoint_config", endpoint["config"])]
        for variant in config["variants"]:
            assert Key("model", variant["model"]) in self.there, f"{variant['model']} serves and is gone"
        return endpoint["weights"]

    def state(self) -> State:
        weights = self.serving()
        releases = []
        for name in weights:
            model = self.there[Key("model", f"{PREFIX}-{name}")]
            releases.append(Release(version=model["environment"]["RECSYS_RELEASE"], image=model["image"]))
        note = self.there.get(Key("scaling_note", PREFIX))
        return State(tuple(releases), dict(weights), ScalingPolicy.heard(note["policy"]) if note else None)

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer by weight, in turn: as many of a hundred answers as a variant has percent."""
        self.calls["invoke"] += 1
        place = self.calls["invoke"] * 37 % 100
        for release in (state := self.state()).releases:
            place -= state.shares[release.name]
            if place < 0:
                return {"items": [{"item_id": "a"}], "model_version": release.version, "request_id": str(place)}
        raise AssertionError("the weights do not sum to 100")

    def batch(self, release: Release, source: str, destination: str) -> str:
        return f"batch-{release.name}"

    def _enter(self, verb: str, key: Key) -> None:
        self.calls[verb] += 1
        self.log.append(f"{verb} {key.kind}")
        self.before(verb, key)

    def _check(self, key: Key, spec: dict[str, Any]) -> None:
        if key.kind == "endpoint_config":
            assert all(Key("model", variant["model"]) in self.there for variant in spec["variants"])
        if key.kind == "endpoint":
            config = self.there[Key("endpoint_config", spec["config"])]
            assert {variant["name"] for variant in config["variants"]} == set(spec["weights"])
