"""The scaling policy, the configurations that each cloud gets from it (golden files), and the simulator's own sense."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import autoscaling
from infra.autoscaling import ScalingPolicy, replicas_wanted
from infra.scaling_simulation import TRACES, Moment, Trace, by_cpu, by_policy, replay

GOLDEN = Path(__file__).with_name("golden")
POLICY = ScalingPolicy()
DEPLOYMENT_ID = "/subscriptions/s/resourceGroups/g/providers/m/workspaces/w/onlineEndpoints/recsys/deployments/v1"
CONFIGURATIONS = {
    "sagemaker": autoscaling.sagemaker(POLICY, "recsys", "v1"),
    "hpa": autoscaling.hpa(POLICY, "recsys"),
    "vertex": autoscaling.vertex(POLICY),
    "azure": autoscaling.azure(POLICY, DEPLOYMENT_ID),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_policys_configuration_is_the_golden_one(name):
    assert CONFIGURATIONS[name] == json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("replicas", "requests", "p95", "hits", "wanted"),
    [
        (4, 1200, 60, 0.0, 4),  # 300 a replica is the target
        (4, 1230, 60, 0.0, 4),  # within the tolerance
        (4, 2400, 60, 0.0, 8),
        (4, 2400, 60, 1.0, 4),  # all from the cache: a fifth of the work; the latency keeps what is there
        (4, 600, 20, 0.0, 2),
        (4, 1200, 90, 0.0, 6),  # latency alone
        (4, 1200, 9000, 0.0, 8),  # at most a doubling
        (4, 99999, 60, 0.0, 12),  # at most times three
        (19, 99999, 60, 0.0, 20),
        (4, 0, 0, 0.0, 2),
    ],
)
def test_known_decisions(replicas, requests, p95, hits, wanted):
    assert replicas_wanted(POLICY, replicas, requests, p95, hits) == wanted


@given(
    replicas=st.integers(1, 20), requests=st.floats(0, 1e5), more=st.floats(0, 1e5), p95=st.floats(0, 1e4),
    hits=st.floats(0, 1),
)  # fmt: skip
def test_more_traffic_or_fewer_hits_never_want_less(replicas, requests, more, p95, hits):
    wanted = replicas_wanted(POLICY, replicas, requests, p95, hits)
    assert POLICY.min_replicas <= wanted <= POLICY.max_replicas
    assert replicas_wanted(POLICY, replicas, requests + more, p95, hits) >= wanted
    assert replicas_wanted(POLICY, replicas, requests, p95, hits / 2) >= wanted


@given(
    st.builds(ScalingPolicy, max_replicas=st.integers(2, 99), capacity=st.floats(0.1, 1e4), p95_ms=st.floats(1, 1e4))
)
def test_a_policy_fits_in_a_tag_and_comes_back(policy):
    assert len(policy.told()) <= 256
    assert ScalingPolicy.heard(policy.told()) == policy


def test_steady_traffic_is_answered_by_both():
    steady = Trace("steady", 3600, lambda second: Moment(500, 0.0, 0.0))
    for autoscaler in (by_policy(POLICY), by_cpu(POLICY, 0.7)):
        outcome = replay(steady, POLICY, autoscaler)
        assert outcome.missed == 0
        assert outcome.replica_hours == pytest.approx(2, abs=0.6)


def test_a_crowd_is_met_sooner_by_what_is_asked_than_by_how_busy_one_is():
    crowd = next(trace for trace in TRACES if trace.name == "flash crowd")
    ours, theirs = (replay(crowd, POLICY, scaler) for scaler in (by_policy(POLICY), by_cpu(POLICY, 0.7)))
    assert ours.requests == theirs.requests
    assert ours.missed < theirs.missed / 2
    assert ours.replica_hours <= theirs.replica_hours * 1.02
