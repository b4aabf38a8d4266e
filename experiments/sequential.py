"""Intervals that hold at every look: whoever stops when it suits him is still wrong in at most α of all cases.

Asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit
theory and asymptotic confidence sequences", eq. (5): with V the estimate's variance after n users and ρ a free number,

    value ± √V · √( (nρ² + 1) / (nρ²) · (log(nρ² + 1) - 2 log α) )

The same boundary is the mixture sequential probability ratio test of Johari, Koomen, Pekelis and Walsh 2017 ("Peeking
at A/B tests") with a normal mixture. It holds for every estimate that is a mean of users' influences up to what
vanishes, so for ratios and logarithms of ratios too. ρ decides where it is tightest, not whether it holds.
"""

from dataclasses import dataclass
from math import exp, log, sqrt

from experiments.estimates import Effect, Estimate


@dataclass(frozen=True)
class Sequence:
    """A family of intervals, one for each number of users, that hold together."""

    rho_squared: float
    alpha: float = 0.05

    @classmethod
    def tuned_for(cls, users: int, alpha: float = 0.05) -> "Sequence":
        """Return the sequence that is about tightest after so many users (the paper's eq. (9)); choose it
        before the first look."""
        if users < 1 or not 0 < alpha < 1:
            raise ValueError(f"{users} users and alpha {alpha}: give at least one user and alpha in (0, 1)")
        doubled = -2 * log(alpha)
        return cls((doubled + log(doubled) + 1) / users, alpha)

    def errors(self, users: int) -> float:
        """Return how many standard errors the interval reaches to each side after so many users."""
        mixed = users * self.rho_squared
        return sqrt((mixed + 1) / mixed * (log(mixed + 1) - 2 * log(self.alpha)))

    def interval(self, effect: Effect) -> Estimate:
        """Return this look's interval."""
        half = self.errors(effect.users) * sqrt(effect.variance)
        return Estimate(effect.value, effect.value - half, effect.value + half)

    def p_value(self, effect: Effect) -> float:
        """Return the smallest α at which the interval would exclude zero; 1 where nothing varies."""
        if effect.z is None:
            return 1.0
        mixed = effect.users * self.rho_squared
        return min(1.0, exp(log(mixed + 1) / 2 - effect.z**2 * mixed / (2 * (mixed + 1))))
