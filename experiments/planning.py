"""How many users does a question need, and what is the smallest effect that so many can show?

A plan promises `power`: the probability that a true effect of the given size is found. Of a single look it is the
normal test's; of looks along the way it is the probability that the always-valid interval ever excludes zero, computed
by numerical integration over the looks (Armitage, McPherson and Rowe 1969).
"""

from math import asin, ceil, pi, sin, sqrt

import numpy as np
from scipy import optimize, stats

from experiments.sequential import Sequence

POINTS_A_STEP = 12
"""Grid points to a standard deviation of what lies between two looks; twice as many move the power by under 1e-4."""
FEWEST_POINTS = 101
MOST_USERS = 10**10
MOST_LOOKS = 1000
"""Of a single look's users; each look is an integration over its neighbours: more take minutes."""
USUAL_LOOKS = 300
LOOK_EVERY = 1000


def effect_of_proportions(baseline: float, treated: float) -> float:
    """Return the distance of two proportions on the scale where their variance is one (Cohen's h)."""
    if not (0 < baseline < 1 and 0 < treated < 1):
        raise ValueError(f"proportions {baseline} and {treated} must lie in (0, 1)")
    return 2 * asin(sqrt(treated)) - 2 * asin(sqrt(baseline))


def rate_at(baseline: float, effect: float) -> float:
    """Return the rate that lies so far above the baseline on the scale of Cohen's h.

    Raises:
        ValueError: the baseline is no rate, or no rate lies so far above it: so few users show nothing.
    """
    angle = 2 * asin(sqrt(baseline)) + effect if 0 < baseline < 1 else pi
    if not 0 <= angle < pi:
        raise ValueError(f"no rate lies {effect:.3g} above {baseline} (Cohen's h): take more users")
    return sin(angle / 2) ** 2


def power(effect: float, users: float, alpha: float = 0.05) -> float:
    """Return the power of one two-sided look.

    Args:
        effect: distance of the variants, in standard deviations of a user.
        users: in each variant.
    """
    shift, bound = abs(effect) * sqrt(users / 2), stats.norm.ppf(1 - alpha / 2)
    return float(stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift))


def users_needed(effect: float, alpha: float = 0.05, wanted_power: float = 0.8) -> float:
    """Return the users in each variant at which one look has the wanted power (not rounded).

    Raises:
        ValueError: there is no effect to find.
    """
    if effect == 0 or not alpha < wanted_power < 1:
        raise ValueError(f"effect {effect}, power {wanted_power}: give an effect, and a power between alpha and 1")
    return float(optimize.brentq(lambda users: power(effect, users, alpha) - wanted_power, 1e-9, MOST_USERS, xtol=1e-7))


def smallest_effect(users: float, alpha: float = 0.05, wanted_power: float = 0.8) -> float:
    """Return the smallest effect, in standard deviations of a user, that one look at so many users in each variant
    shows with the wanted power.

    Raises:
        ValueError: there are no users, or the power is not between alpha and 1.
    """
    if users < 1 or not alpha < wanted_power < 1:
        raise ValueError(f"{users} users, power {wanted_power}: give users, and a power between alpha and 1")
    return float(optimize.brentq(lambda effect: power(effect, users, alpha) - wanted_power, 1e-12, 1e3))


def sequential_power(effect: float, users: int, look_every: int, sequence: Sequence) -> float:
    """Return the probability that the always-valid interval has excluded zero by the last of these looks.

    Args:
        effect: distance of the variants, in standard deviations of a user.
        users: in both variants together, at the last look; half of them in each.
        look_every: users between two looks.

    After n users the sum of what each says about the difference is a Brownian motion with drift, S ~ N(n·effect/2, n).
    Its density over what has not been decided yet is carried from look to look.
    """
    looks = np.unique(np.append(np.arange(look_every, users + 1, look_every), users)).tolist()
    drift, before = abs(effect) / 2, 0
    grid, density = np.zeros(1), np.ones(1)  # all of it at zero: no user was seen
    undecided = 1.0
    for now in looks:
        step = now - before
        edge = sequence.errors(now) * sqrt(now)
        points = np.linspace(-edge, edge, max(FEWEST_POINTS, ceil(2 * edge / sqrt(step) * POINTS_A_STEP)))
        if before:
            undecided = float(np.trapezoid(density * _stays(grid, edge, drift * step, step), grid))
            carried = _carried(density, grid, points, drift * step, step)
        else:
            undecided = float(_stays(grid, edge, drift * step, step)[0])
            carried = stats.norm.pdf(points, drift * step, sqrt(step))
        total = float(np.trapezoid(carried, points))
        density = carried * (undecided / total) if total > 0 else carried  # the grid's losses do not add up
        grid, before = points, now
    return 1 - undecided


def spacing_of_looks(users: float) -> int:
    """Return the users between two looks of a plan that needs about so many: a multiple of `LOOK_EVERY` that leaves at
    most `USUAL_LOOKS`, since looks along the way ask for up to three times the users of a single one.
    """
    return LOOK_EVERY * max(1, ceil(3 * users / LOOK_EVERY / USUAL_LOOKS))


def sequential_users(effect: float, look_every: int, alpha: float = 0.05, wanted_power: float = 0.8) -> int:
    """Return the users of both variants together after which always-valid looks have the wanted power, a multiple of
    `look_every`; the sequence is tuned for that number.

    Raises:
        ValueError: there is no effect to find, no user between two looks, or so few that a single look's users are
            looked at more than `MOST_LOOKS` times.
    """
    if look_every < 1:
        raise ValueError(f"a look every {look_every} users")

    def is_reached(looks: int) -> bool:
        users = looks * look_every
        return sequential_power(effect, users, look_every, Sequence.tuned_for(users, alpha)) >= wanted_power

    single = 2 * users_needed(effect, alpha, wanted_power)
    if single / look_every > MOST_LOOKS:
        raise ValueError(
            f"{single / look_every:,.0f} looks: look every {spacing_of_looks(single)} users, or more rarely"
        )
    few = ceil(single / 2 / look_every)  # one look at half of what it needs: too few
    many = 2 * few
    while not is_reached(many):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if is_reached(middle) else (middle, many)
    return many * look_every


def _stays(grid: np.ndarray, edge: float, shift: float, step: int) -> np.ndarray:
    """Return the probability of being within the edges one step later, from each point of the grid. (G,)"""
    ends = np.array([[-edge], [edge]])
    return np.diff(stats.norm.cdf(ends, grid + shift, sqrt(step)), axis=0)[0]


def _carried(density: np.ndarray, grid: np.ndarray, points: np.ndarray, shift: float, step: int) -> np.ndarray:
    """Return the density one step later at these points: a sum of normal kernels within six standard deviations."""
    spacing, spread = grid[1] - grid[0], sqrt(step)
    reach = ceil(6 * spread / spacing) + 1
    centre = np.rint((points - shift - grid[0]) / spacing).astype(int)  # (G,)
    index = centre[:, None] + np.arange(-reach, reach + 1)[None, :]  # (G, R)
    valid = (index >= 0) & (index < len(grid))
    source = np.clip(index, 0, len(grid) - 1)
    kernel = np.exp(-((points[:, None] - shift - grid[source]) ** 2) / (2 * step)) / (spread * sqrt(2 * np.pi))
    weighted = density * spacing
    weighted[[0, -1]] /= 2  # the trapezoidal rule
    return (np.where(valid, weighted[source], 0.0) * kernel).sum(1)
