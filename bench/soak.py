"""What a run of bench/chaos.py says, sentence by sentence of what is asked: failures, events, latency in a fault,
memory and the error budget. Pure: reports of stretches in, rows of a table out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.faults import FAULTS, Fault

OBJECTIVE_MS = 100.0
"""An answer is within the objective when it comes in this time, whatever is done to the services meanwhile."""
OBJECTIVE = 0.9999
"""Share of the requests that shall be."""
FLAT = 1.1
"""Memory is flat where the last round of the same faults takes at most so many times what the first one took."""
TOLD_STOLEN = 0.03
"""From which share on it is told what the machine's host took of the processors in a stretch."""
TIMES, MINUTES = 2, 30
"""How often each fault is done in a soak, and how long the soak lasts."""


@dataclass(frozen=True)
class Stretch:
    """Some seconds of load, with at most one fault in the middle."""

    round: int
    """From 1; 0 is the stretch behind the last fault."""
    fault: Fault | None
    report: Mapping[str, Any]
    """The load generator's; empty where it gave none."""
    memory: Mapping[str, float] = field(default_factory=dict)
    """Resident MiB of each process at the end; 0: it has ended."""
    stolen: float = 0.0
    """Share of the machine's processor time that its host gave to others meanwhile."""

    @property
    def name(self) -> str:
        if self.fault is None:
            return f"no fault, round {self.round}" if self.round else "no fault, afterwards"
        return f"{self.fault.service}: {self.fault.kind}, round {self.round}"

    @property
    def failures(self) -> int:
        """Requests that a 5xx answered or nothing."""
        statuses = self.report["statuses"].items()
        return self.report["lost"] + sum(count for status, count in statuses if int(status) >= 500)


def told(stretch: Stretch) -> list[tuple[str, str, str]]:
    """Return the rows (measure, target, measured) of one stretch."""
    report = stretch.report
    if not report:
        return [(f"{stretch.name}: lists", "0 failures", "void: the load generator failed twice")]
    said = f"{stretch.failures} failures of {report['answers']}, {report['wrong']} not personalised"
    said += f", {report['cut']} sent again" if report["cut"] else ""
    spread = f"p50 {report['p50_ms']:.1f} ms, p99 {report['p99_ms']:.1f} ms, worst {report['max_ms']:.0f} ms"
    if stretch.stolen >= TOLD_STOLEN:
        spread += f"; the host took {stretch.stolen:.0%} of the processors"
    return [
        (f"{stretch.name}: lists", "0 failures", said),
        (f"{stretch.name}: latency", f"p99 ≤ {OBJECTIVE_MS:g} ms", spread),
    ]


def judged(stretches: Sequence[Stretch], events: Mapping[str, int], minutes: float) -> list[tuple[str, str, str]]:
    """Return a row (measure, target, measured with its verdict) for each sentence of what a soak has to show.

    Args:
        events: what became of the clicks, by the names of `bench.chaos.survey`; empty: nobody looked.
        minutes: how long the load lasted.
    """
    whole = [one for one in stretches if one.report]
    asked = sum(one.report["answers"] + one.report["lost"] for one in whole)
    failed = sum(one.failures for one in whole)
    wrong = [events.get(name) for name in ("lost", "twice", "of users whose count is wrong")]
    seen = ", ".join("not known" if count is None else f"{count}" for count in wrong)
    rows = [
        ("soak: lists that failed", "0", _verdict(failed == 0 and asked > 0, f"{failed} of {asked:,}")),
        ("soak: events lost, counted twice, users whose count is wrong", "0", _verdict(set(wrong) == {0}, seen)),
        ("soak: p99 in each fault", f"≤ {OBJECTIVE_MS:g} ms", _in_faults(whole)),
        ("soak: each fault of the harness", f"{TIMES} times", _how_often(whole)),
        ("soak: duration", f"{MINUTES} min", _verdict(minutes >= MINUTES - 0.05, f"{minutes:.1f} min")),
        ("soak: processes that ended by themselves", "0", _ended(stretches)),
        ("soak: memory", f"the last round ≤ {FLAT:g} × the first", _memory(stretches)),
    ]
    if asked:
        late = failed + sum(one.report["late"] for one in whole)
        share = 1 - late / asked
        budget = f"{share:.3%}; budget {(1 - OBJECTIVE) * asked:.0f} requests, spent {late:,}"
        target = f"beyond: {OBJECTIVE:.2%} without failure in {OBJECTIVE_MS:g} ms"
        rows.append(("soak: error budget", target, f"{budget}: {'met' if share >= OBJECTIVE else 'not reached'}"))
        spent = f"{1 - failed / asked:.4%}; budget {(1 - OBJECTIVE) * asked:.0f} requests, spent {failed:,}"
        availability = _verdict(failed <= (1 - OBJECTIVE) * asked, spent)
        rows.append(("soak: error budget of availability alone", f"{OBJECTIVE:.2%} without failure", availability))
    return rows


def _verdict(met: bool, said: str) -> str:
    return f"{said}: {'met' if met else 'MISSED'}"


def _in_faults(whole: Sequence[Stretch]) -> str:
    faults = [one for one in whole if one.fault is not None]
    if not faults:
        return "no fault was done: MISSED"
    over = [one for one in faults if one.report["p99_ms"] > OBJECTIVE_MS]
    if over:
        listed = ", ".join(f"{one.name} {one.report['p99_ms']:.0f} ms" for one in over)
        return f"over it in {len(over)} of {len(faults)} ({listed}): MISSED"
    worst = max(faults, key=lambda one: one.report["p99_ms"])
    return f"at most {worst.report['p99_ms']:.0f} ms ({worst.name}) in {len(faults)}: met"


def _how_often(whole: Sequence[Stretch]) -> str:
    done = [one.fault for one in whole]
    least = min(done.count(fault) for fault in FAULTS)
    return _verdict(least >= TIMES, f"{len(FAULTS)} faults, each at least {least} times")


def _ended(stretches: Sequence[Stretch]) -> str:
    found = [f"{name} in {one.name}" for one in stretches for name, taken in one.memory.items() if taken == 0]
    return _verdict(not found, f"{len(found)} ({', '.join(found)})" if found else "0")


def _memory(stretches: Sequence[Stretch]) -> str:
    """Compare what each process took at most in the first round and in the last one."""
    last = max((one.round for one in stretches), default=0)
    if last < TIMES:
        return "not comparable: one round: MISSED"
    peaks = {
        number: {
            name: max(one.memory[name] for one in stretches if one.round == number and name in one.memory)
            for name in {name for one in stretches if one.round == number for name in one.memory}
        }
        for number in (1, last)
    }
    both = sorted(set(peaks[1]) & set(peaks[last]))
    said = ", ".join(f"{name} {peaks[1][name]:.0f}, then {peaks[last][name]:.0f} MiB" for name in both)
    return _verdict(bool(both) and all(peaks[last][name] <= FLAT * peaks[1][name] for name in both), said)
