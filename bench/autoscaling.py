"""The autoscaling policy against CPU-only scaling, in the simulator of infra/scaling_simulation.py.

    python -m bench.autoscaling [--seeds 20] [--families weekly …]

Two tables in one: the four traces that the policy was tuned on, and traces of bench/traffic.py that it never saw, so
many seeds a family. With `--families` only these are drawn, and what was published of the others stays. CPU-only is
given hindsight: for each trace the target between 20 and 90 % at which it costs least while costing no less than the
policy. The policy has one setting for all traces.
"""

import json
import re
from argparse import ArgumentParser
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any, NamedTuple

from bench.results import FOLDER, publish
from bench.traffic import FAMILIES, TUNED_ON, drawn
from infra.autoscaling import ScalingPolicy
from infra.prices import READ, price
from infra.scaling_simulation import LAG_S, START_S, TRACES, Outcome, Trace, by_cpu, by_policy, replay

CPU_TARGETS = range(20, 92, 2)
USUAL = 70
SHAPE = "1 core, 1 GiB"
SEEDS = 20
COMMAND = "python -m bench.autoscaling"
PROCESSES = 2

NOTES = """Simulated, not measured: replicas of {capacity:.0f} computed answers/s (an assumption until measured on the
shape in question), {start} s from asking to answering, measures {lag} s old, a promise of {p95:.0f} ms at p95. Prices:
{shape}, {kind} of {read}. On the traces that it was tuned on the target is met on {met} of {traces}; on those that it
never saw, on {held_met} of {held}.

**Tuned on.** The policy's `utilisation`, `p95_aim`, `p95_damping` and `growth` were chosen by looking at the four
traces named *tuned on*, by a random search over several forms of policy whose tries were not counted: their rows are an
upper bound of what another day shows.

**Held out.** {seeds} seeds a family (`bench/traffic.py`), with noise, drawn after the policy was fixed; neither the
policy nor the families' ranges were changed after a look at them. *Crowds* and *client* have a shape that no tuned
trace has. A trace counts as met where the policy misses at most half of what CPU-only misses at no less cost, and
also where neither misses anything. CPU-only's target is chosen for each trace with hindsight, which no operator has;
the last row of a family gives it one target for the whole family, again with hindsight.

What it shows: the lead on the tuned traces is partly fitted to them. It holds for leaks, which processors do not see,
and for one large crowd. On ordinary days the policy does as CPU-only does at the same price, and on many small crowds
worse than a CPU-only target that hindsight put low: there idle replicas, ready beforehand, are worth more than a fast
reaction, and the policy runs at {use:.0%} of the capacity and keeps replicas after a crowd because of its latency. Who
has such traffic should lower `utilisation` and raise `min_replicas`. The policy was left as it was: tuning it on
these traces would leave none to judge it by.

An hour like each trace's first moment comes before it and is not counted.

*Diurnal*, tuned on: all misses of both come from one jump, when a new model is served in the evening's peak and the
cache starts empty. No reactive policy sees a jump before it is there; for this one the rollout shifts the traffic in
steps. *Slow leak*: at a target low enough CPU-only holds so many idle replicas that the leak never shows, at a higher
price."""


class Compared(NamedTuple):
    """One trace: the policy, and CPU-only at each target."""

    ours: Outcome
    theirs: dict[int, Outcome]

    @property
    def fair(self) -> int:
        """The target at which CPU-only costs least of those that cost no less than the policy."""
        dearer = [percent for percent, each in self.theirs.items() if each.replica_hours >= self.ours.replica_hours]
        return min(dearer, default=CPU_TARGETS[0], key=lambda percent: self.theirs[percent].replica_hours)

    @property
    def ratio(self) -> float:
        """Of CPU-only's misses at that target; below one request the denominator is one."""
        return self.ours.missed / max(1.0, self.theirs[self.fair].missed)


def compared(trace: Trace) -> Compared:
    policy = ScalingPolicy()
    theirs = {percent: replay(trace, policy, by_cpu(policy, percent / 100)) for percent in CPU_TARGETS}
    return Compared(replay(trace, policy, by_policy(policy)), theirs)


def held_out(given: tuple[str, int]) -> Compared:
    return compared(drawn(*given))


def told(outcome: Outcome) -> str:
    """Return an outcome as a cell."""
    usd = outcome.replica_hours * price("k8s", SHAPE).usd_per_hour
    return f"{outcome.missed / outcome.requests:.3%} missed, {outcome.replica_hours:.1f} replica-hours, {usd:.2f} USD"


def total(outcomes: list[Outcome]) -> Outcome:
    return Outcome(*(sum(column) for column in zip(*outcomes, strict=True)))


def row(measure: str, measured: str, target: str = "") -> dict[str, Any]:
    return {"measure": measure, "target": target, "measured": measured, "command": COMMAND}


def rows_of_tuned(name: str, each: Compared) -> Iterator[dict[str, Any]]:
    verdict = "met" if each.ratio <= 0.5 else "missed"
    yield row(f"tuned on, {name}: policy", told(each.ours))
    yield row(
        f"tuned on, {name}: CPU-only at {each.fair} %, the cheapest that costs no less",
        f"{told(each.theirs[each.fair])}; the policy misses {each.ratio:.3f} of it: {verdict}",
        "at least twice the policy's misses",
    )
    yield row(f"tuned on, {name}: CPU-only at the usual {USUAL} %", told(each.theirs[USUAL]))


def rows_of_family(name: str, every: list[Compared]) -> Iterator[dict[str, Any]]:
    """A family's sums. A ratio is told where CPU-only missed something at all."""
    met = sum(each.ratio <= 0.5 for each in every)
    neither = sum(not each.ours.missed and not each.theirs[each.fair].missed for each in every)
    worse = sum(each.ours.missed > each.theirs[each.fair].missed for each in every)
    ratios = [each.ratio for each in every if each.theirs[each.fair].missed]
    spread = f"the policy misses {median(ratios):.3f} of it (median), {max(ratios):.3f} at worst" if ratios else "–"
    ours, kind = total([each.ours for each in every]), "" if name in TUNED_ON else " (a new shape)"
    yield row(f"held out, {name}{kind}, {len(every)} seeds: policy", told(ours))
    yield row(
        f"held out, {name}: CPU-only, the cheapest target that costs no less, a trace at a time",
        f"{told(total([each.theirs[each.fair] for each in every]))}; {spread}; halved on {met} of {len(every)} "
        f"(neither missed on {neither}), more misses than CPU-only on {worse}: "
        f"{'met' if met == len(every) else 'missed'}",
        "at least twice the policy's misses, on each",
    )
    yield row(f"held out, {name}: CPU-only at the usual {USUAL} %", told(total([each.theirs[USUAL] for each in every])))
    sums = {percent: total([each.theirs[percent] for each in every]) for percent in CPU_TARGETS}
    family = Compared(ours, sums)
    yield row(
        f"held out, {name}: CPU-only at {family.fair} % for the family, the cheapest that costs no less",
        f"{told(sums[family.fair])}; the policy misses {family.ratio:.3f} of it",
    )


def published(family: str) -> list[dict[str, Any]]:
    """Return the rows that stand there of a family."""
    file = FOLDER / "autoscaling.json"
    rows = json.loads(file.read_bytes())["rows"] if file.exists() else []
    return [each for each in rows if re.match(rf"held out, {family}[:, (]", each["measure"])]


def main() -> None:
    parser = ArgumentParser(prog="python -m bench.autoscaling", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    given = parser.parse_args()
    seeds = given.seeds
    policy, tuned = ScalingPolicy(), {trace.name: compared(trace) for trace in TRACES}
    asked = [(family, seed) for family in given.families for seed in range(seeds)]
    with ProcessPoolExecutor(PROCESSES) as pool:
        found = dict(zip(asked, pool.map(held_out, asked), strict=True))
    rows = [each for name, one in tuned.items() for each in rows_of_tuned(name, one)]
    for family in FAMILIES:
        drawn_now = [found[family, seed] for seed in range(seeds)] if family in given.families else []
        rows += rows_of_family(family, drawn_now) if drawn_now else published(family)
    halved = [match for each in rows for match in re.findall(r"halved on (\d+) of (\d+)", each["measured"])]
    notes = NOTES.format(
        capacity=policy.capacity, use=policy.utilisation, p95=policy.p95_ms, start=START_S, lag=LAG_S, shape=SHAPE,
        seeds=seeds, kind=price("k8s", SHAPE).kind.lower(), read=READ,
        met=sum(each.ratio <= 0.5 for each in tuned.values()), traces=len(tuned),
        held_met=sum(int(met) for met, _ in halved), held=sum(int(of) for _, of in halved),
    )  # fmt: skip
    publish("autoscaling", "Autoscaling: the policy against CPU-only scaling (simulated)", rows, notes)


if __name__ == "__main__":
    main()
