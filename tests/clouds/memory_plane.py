"""A control plane in memory, for any blueprint, that can be told to fail: before or after a call has had its effect."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from infra.blueprint import Blueprint
from infra.targets import Key, Release


class Killed(BaseException):
    """The process dies here; nobody may catch it."""


class MemoryPlane:
    """What has traffic has to be there, and what is in use cannot be deleted; beyond that it takes everything."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.there: dict[Key, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        self.log: list[str] = []
        self.counts = True
        self.before: Callable[[str, Key], None] = lambda verb, key: None
        self.after: Callable[[str, Key], None] = lambda verb, key: None

    def read(self, key: Key) -> dict[str, Any] | None:
        return self.there.get(key)

    def owned(self) -> list[Key]:
        return sorted(self.there, key=lambda key: self.blueprint.kinds.index(key.kind))

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
        used = [spec for other, spec in self.there.items() if (other.kind, key.kind) == ("endpoint", "endpoint_config")
                and spec.get("config") == key.name]  # fmt: skip
        assert not used, f"{key} is in use"
        assert key.kind != "deployment" or not self.serving().get(key.name.partition("/")[2]), f"{key} has traffic"
        self.there.pop(key, None)
        self.after("delete", key)

    def serving(self) -> dict[str, int]:
        """Return release → percent, empty when nothing serves; everything behind it has to be there."""
        return dict(self.blueprint.state(self.read).shares)

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer by weight, in turn: as many of a hundred answers as a variant has percent."""
        self.calls["invoke"] += 1
        place = self.calls["invoke"] * 37 % 100
        for release in (state := self.blueprint.state(self.read)).releases:
            place -= state.shares[release.name]
            if place < 0:
                return {"items": [{"item_id": "a"}], "model_version": release.version, "request_id": str(place)}
        raise AssertionError("the weights do not sum to 100")

    def batch(self, release: Release, source: str, destination: str) -> str:
        return f"batch-{release.name}"

    def requests(self, since: datetime, until: datetime) -> int | None:
        return self.calls["invoke"] if self.counts else None

    def _enter(self, verb: str, key: Key) -> None:
        self.calls[verb] += 1
        self.log.append(f"{verb} {key.kind}")
        self.before(verb, key)

    def _check(self, key: Key, spec: dict[str, Any]) -> None:
        if key.kind == "endpoint_config":
            assert all(Key("model", variant["model"]) in self.there for variant in spec["variants"])
        if key.kind == "endpoint" and "config" in spec:
            config = self.there[Key("endpoint_config", spec["config"])]
            assert {variant["name"] for variant in config["variants"]} == set(spec["weights"])
        if key.kind == "traffic":
            deployed = {other.name.partition("/")[2] for other in self.there if other.kind == "deployment"}
            assert set(spec["shares"]) <= deployed
