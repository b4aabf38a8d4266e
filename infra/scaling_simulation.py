"""Traffic against autoscalers: a fluid model of replicas behind a load balancer, replayed over four traces.

What is modelled, a step being `STEP_S` seconds: work arrives; ready replicas do at most their capacity, the rest
waits; the p95 of a step is the waiting time of the backlog plus that of a queue at this use (an M/M/1 replica's
quantile). Decisions see measures that are `LAG_S` old, and a replica that is asked for answers after `START_S`. Both
autoscalers get the same lag, the same bounds and the same rules of growth and shrinking; they differ in what they look
at. A trace's first moment lasts for an hour that is not counted: nobody starts a day with two replicas and a crowd. No
noise is drawn: the traces are formulas, so a figure is the same on every machine.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from infra.autoscaling import ScalingPolicy, replicas_wanted, weight

STEP_S = 15
LAG_S = 30
START_S = 60
"""From asking for a replica to its first answer: pulling the image, loading the bundle, passing the readiness probe.
An assumption (a warm node), the same for both sides."""
DAY_S = 86_400
WARM_STEPS = 3600 // STEP_S


class Moment(NamedTuple):
    """What the world asks for in one step."""

    requests_per_second: float
    hit_ratio: float
    slowness: float
    """Waiting in an answer that is not processor time, as a multiple of its processor time; it takes up capacity."""


class Outcome(NamedTuple):
    """What an autoscaler made of a trace."""

    requests: float
    missed: float
    """Requests in steps whose p95 was over the promise."""
    replica_hours: float


@dataclass(frozen=True)
class Trace:
    """A course of traffic."""

    name: str
    seconds: int
    at: Callable[[float], Moment]

    def steps(self) -> Iterator[Moment]:
        return (self.at(float(second)) for second in range(0, self.seconds, STEP_S))


def _daily(second: float, low: float, high: float) -> float:
    """A day's wave, lowest at four in the morning."""
    return low + (high - low) * (0.5 - 0.5 * math.cos(2 * math.pi * (second - 4 * 3600) / DAY_S)) ** 1.5


def diurnal(second: float) -> Moment:
    """One day; a new model is served at 18:00, in the evening's peak, and the cache starts empty."""
    since = second - 18 * 3600
    hits = 0.6 if since < 0 else 0.6 * (1 - math.exp(-since / 1800))
    return Moment(_daily(second, 300, 3000), hits, 0.0)


def flash_crowd(second: float) -> Moment:
    """Six hours; in the third one five times the traffic within a minute, fading over an hour. New users: few hits."""
    since = second - 2 * 3600
    if since < 0:
        return Moment(600, 0.5, 0.0)
    rise = min(1.0, since / 60) * math.exp(-max(0.0, since - 60) / 2400)
    return Moment(600 * (1 + 4 * rise), 0.5 - 0.3 * rise, 0.0)


def slow_leak(second: float) -> Moment:
    """A day of steady traffic while a dependency grows slower, to two and a half times; processors do not see it."""
    return Moment(1200 + 200 * math.sin(2 * math.pi * second / 7200), 0.4, 1.5 * second / DAY_S)


def weekly(second: float) -> Moment:
    """Seven days, the weekend half as much again, and a mail to all users at noon of the fourth day."""
    day = second // DAY_S
    base = _daily(second, 250, 2000) * (1.5 if day >= 5 else 1.0)
    since = second - (3 * DAY_S + 12 * 3600)
    mail = 2500 * min(1.0, since / 120) * math.exp(-max(0.0, since - 120) / 1500) if since >= 0 else 0.0
    return Moment(base + mail, 0.55 - 0.2 * mail / (base + mail), 0.0)


TRACES = (
    Trace("diurnal", DAY_S, diurnal),
    Trace("flash crowd", 6 * 3600, flash_crowd),
    Trace("slow leak", DAY_S, slow_leak),
    Trace("weekly", 7 * DAY_S, weekly),
)


class Seen(NamedTuple):
    """What an autoscaler can see of one step."""

    replicas: int
    requests_per_second: float
    p95_ms: float
    hit_ratio: float
    busy: float
    """Replicas' worth of processors in use; at most the ready ones, however much is asked."""


Autoscaler = Callable[[Seen], int]


def by_policy(policy: ScalingPolicy) -> Autoscaler:
    """Return the autoscaler of the policy."""
    return lambda seen: replicas_wanted(policy, seen.replicas, seen.requests_per_second, seen.p95_ms, seen.hit_ratio)


def by_cpu(policy: ScalingPolicy, target: float) -> Autoscaler:
    """Return the usual autoscaler: processor use over its target, with the policy's bounds and growth.

    As the HPA does it: a replica that is not ready yet counts as idle while there are too few.
    """

    def wanted(seen: Seen) -> int:
        ratio = seen.busy / (seen.replicas * target)
        count = math.ceil(round(seen.replicas * ratio, 6)) if abs(ratio - 1) > policy.tolerance else seen.replicas
        bounded = min(count, math.floor(seen.replicas * policy.growth))
        return max(policy.min_replicas, min(policy.max_replicas, bounded))

    return wanted


def replay(trace: Trace, policy: ScalingPolicy, autoscaler: Autoscaler) -> Outcome:
    """Return what this autoscaler makes of the trace."""
    ready, starting = policy.min_replicas, deque[tuple[int, int]]()
    recommended: deque[int] = deque(maxlen=max(1, policy.shrink_after_s // STEP_S))
    seen: deque[Seen] = deque(maxlen=LAG_S // STEP_S + 1)
    backlog = requests = missed = hours = 0.0
    before = [trace.at(0.0)] * WARM_STEPS
    for step, moment in enumerate(chain(before, trace.steps()), -WARM_STEPS):
        while starting and starting[0][0] <= step:
            ready += starting.popleft()[1]
        capacity = ready * policy.capacity / (1 + moment.slowness)  # work/s
        work = moment.requests_per_second * weight(moment.hit_ratio, policy.hit_cost)
        done = min(capacity, work + backlog / STEP_S)
        backlog = max(0.0, backlog + (work - done) * STEP_S)
        p95 = quantile_ms(policy.capacity / (1 + moment.slowness), work / ready, backlog / capacity)
        count = ready + sum(number for _, number in starting)
        if step >= 0:
            asked = moment.requests_per_second * STEP_S
            requests += asked
            missed += asked if p95 > policy.p95_ms else 0.0
            hours += count * STEP_S / 3600
        seen.append(Seen(count, moment.requests_per_second, p95, moment.hit_ratio, done / policy.capacity))
        wanted = autoscaler(seen[0]._replace(replicas=count))
        recommended.append(wanted)
        if wanted > count:
            starting.append((step + START_S // STEP_S, wanted - count))
        elif max(recommended) < count:
            surplus = count - max(recommended)
            while surplus and starting:  # the youngest go first: they answer nobody yet
                when, number = starting.pop()
                taken = min(number, surplus)
                surplus -= taken
                if number > taken:
                    starting.append((when, number - taken))
            ready -= surplus
    return Outcome(requests, missed, hours)


BASE_MS = 8.0
"""p95 of an answer of an idle replica, before waiting."""


def quantile_ms(capacity: float, work: float, waiting_s: float) -> float:
    """Return the p95 in milliseconds of a replica of this capacity under this work, behind a backlog of `waiting_s`."""
    use = min(work / capacity, 0.999)
    queued = math.log(20) / (capacity * (1 - use)) if use > 0 else 0.0
    return BASE_MS + 1000 * (queued + waiting_s)
