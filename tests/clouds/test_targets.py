"""Every target's blueprint over a control plane in memory, and that a new target is one file and its prices."""

import sys

import pytest

from infra import configuration, prices, rollout
from infra.autoscaling import ScalingPolicy
from infra.blueprint import BlueprintTarget, State
from infra.prices import Price
from infra.reconcile import Ledger, Reconciler
from infra.targets import Release
from recsys.settings import Settings
from tests.clouds.conformance import POLICY, check_the_whole_way
from tests.clouds.memory_plane import MemoryPlane

OLD, NEW = Release(version="1", image="recsys:1"), Release(version="2", image="recsys:2")
PARTS = {
    "local": {"bundles": "bundles/v{version}", "state": "state"},
    "aws": {"role_arn": "arn:aws:iam::123456789012:role/recsys-serving", "registry": "registry.example"},
    "gcp": {"project": "recsys-test", "registry": "registry.example",
            "service_account": "serving@recsys-test.iam.gserviceaccount.com"},
    "azure": {"subscription": "00000000-0000-4000-8000-000000000000", "resource_group": "recsys", "workspace": "recsys",
              "registry": "registry.example"},
    "aci": {"subscription": "00000000-0000-4000-8000-000000000000", "resource_group": "recsys",
            "registry": "registry.example", "identity": "/subscriptions/s/userAssignedIdentities/serving"},
    "k8s": {"registry": "registry.example", "url": "http://gateway.example"},
}  # fmt: skip


def blueprint(name: str):
    module = configuration.module(name)
    return module.Blueprint(module.Config.model_validate(PARTS[name]))


def in_memory(made, path) -> BlueprintTarget:
    plane = MemoryPlane(made)
    return BlueprintTarget(made, plane, Reconciler(made.name, plane, Ledger(path / "l.jsonl"), lambda seconds: None))


def test_these_targets_are_there():
    assert configuration.names() == sorted(PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_each_blueprint_goes_the_whole_way(name, tmp_path):
    check_the_whole_way(in_memory(blueprint(name), tmp_path), OLD, NEW)


@pytest.mark.parametrize("name", PARTS)
def test_a_state_comes_back_from_its_resources(name):
    made, policy = blueprint(name), ScalingPolicy(max_replicas=7)
    state = State((OLD, NEW), {OLD.name: 90, NEW.name: 10}, policy)
    resources = made.resources(state)
    assert [each.kind for each in resources] == sorted((each.kind for each in resources), key=made.kinds.index)
    specs = {each.key: each.spec for each in resources}
    assert made.state(specs.get) == state


@pytest.mark.parametrize("name", PARTS)
def test_what_stands_there_by_the_hour_has_its_price(name):
    made = blueprint(name)
    one = made.resources(State((OLD,), {OLD.name: 100}, POLICY))
    priced = [each for each in one if each.priced_by]
    assert priced
    assert all(each.priced_by in prices.PRICES for each in priced)
    two = made.resources(State((OLD, NEW), {OLD.name: 90, NEW.name: 10}, POLICY))
    assert sum(each.monthly_usd for each in two) == pytest.approx(2 * sum(each.monthly_usd for each in one))


INVENTED = """
from pydantic import Field

from infra.blueprint import state_of
from infra.prices import price
from infra.targets import Frozen, Key, Release, Resource
from tests.clouds.memory_plane import MemoryPlane


class Config(Frozen):
    shape: str = Field("small")


class Blueprint:
    name, registry, kinds, free = "invented", "registry.example", ("deployment", "traffic"), ()

    def __init__(self, config):
        self.config = config

    def resources(self, state):
        row = price("invented", self.config.shape)
        found = [
            Resource(kind="deployment", name=f"recsys/{each.name}", spec={"version": each.version, "image": each.image},
                     monthly_usd=row.monthly())
            for each in state.releases
        ]
        note = {"policy": state.policy.told()} if state.policy else {}
        traffic = Resource(kind="traffic", name="recsys", spec={"shares": dict(state.shares), **note})
        return [*found, traffic] if found else []

    def state(self, read):
        def release_of(name):
            found = read(Key("deployment", f"recsys/{name}"))
            return found and Release(**found)

        return state_of(read(Key("traffic", "recsys")), release_of)


def plane(config, sleep):
    return MemoryPlane(Blueprint(config))
"""


def test_a_new_target_is_one_file_and_its_prices(tmp_path, monkeypatch):
    import infra

    folder = tmp_path / "infra" / "invented"
    folder.mkdir(parents=True)
    (folder / "target.py").write_text(INVENTED)
    monkeypatch.setattr(infra, "__path__", [*infra.__path__, str(tmp_path / "infra")])
    monkeypatch.setitem(prices.PRICES, "invented small", Price(0.05, 2, 4, "ESTIMATE", "of this test"))
    assert configuration.names(tmp_path / "infra") == ["invented"]
    monkeypatch.setattr(configuration, "names", lambda: ["invented"])
    (tmp_path / "clouds.json").write_text('{"invented": {"shape": "small"}}')
    settings = Settings(_env_file=None, var_dir=tmp_path, clouds=str(tmp_path / "clouds.json"))
    try:
        target = configuration.target("invented", settings, configuration.read(settings))
        assert target.plan(OLD, rollout.CANARY).monthly_usd == 36.5
        check_the_whole_way(target, OLD, NEW)
    finally:
        sys.modules.pop("infra.invented.target", None)
        sys.modules.pop("infra.invented", None)
