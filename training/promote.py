"""The promotion gate: pure. Measured differences in, a decision and its reason out."""

from dataclasses import dataclass

from recsys.artifacts import BASELINE_MODEL


@dataclass(frozen=True)
class Contender:
    """A registered version at the gate."""

    version: str
    model: str
    run_id: str
    as_of: str


@dataclass(frozen=True)
class Decision:
    """Who is champion from now on, and why."""

    champion: Contender | None
    promoted: bool
    reason: str


def decide(
    challenger: Contender,
    champion: Contender | None,
    baseline: Contender | None,
    over_baseline: dict[str, float] | None,
    over_champion: dict[str, float] | None,
    equality: float | None = None,
    least_equality: float = 0.0,
) -> Decision:
    """Decide whether the challenger becomes champion.

    It must beat popularity and, if there is one, the champion, each by a paired difference whose 95 % interval lies
    above zero, on the same test users of the newest cut. Without a champion there is nothing to protect and something
    must serve: the better of challenger and popularity by the difference itself, and the reason says whether it is
    certain. A champion that knows later data than the challenger stays.

    Args:
        over_baseline: difference to popularity (`difference`, `low`, `high`); None if the challenger is popularity or
            popularity was not evaluated.
        over_champion: difference to the champion; None if there is none or it is the challenger.
        equality: the challenger's ndcg@10 for the worst-served group of users over that for the best-served, by how
            much is known of them; None where it could not be judged.
        least_equality: what that has to be beside a champion; 0 asks nothing.
    """
    if champion and champion.run_id == challenger.run_id:
        return Decision(champion, False, f"{challenger.model} of this data cut is champion already")
    if champion and champion.as_of > challenger.as_of:
        return Decision(
            champion,
            False,
            f"the champion knows the data until {champion.as_of}, the challenger until {challenger.as_of}",
        )
    if champion is None:
        if over_baseline and over_baseline["difference"] > 0:
            certainty = (
                "it beats popularity" if over_baseline["low"] > 0 else "it leads popularity, not yet with certainty"
            )
            return Decision(challenger, True, f"no champion yet, and {certainty}: {_interval(over_baseline)}")
        if baseline is None:
            return Decision(None, False, "no champion yet, but popularity was not evaluated, so that nothing is proved")
        return Decision(baseline, True, "no champion yet, and nothing leads popularity: it serves")
    if challenger.model != BASELINE_MODEL and (over_baseline is None or over_baseline["low"] <= 0):
        shown = _interval(over_baseline) if over_baseline else "popularity was not evaluated"
        return Decision(champion, False, f"{challenger.model} does not beat popularity with certainty: {shown}")
    if over_champion is None or over_champion["low"] <= 0:
        shown = _interval(over_champion) if over_champion else "no test user in common"
        return Decision(champion, False, f"{challenger.model} does not beat the champion with certainty: {shown}")
    if least_equality > 0 and (equality is None or equality < least_equality):
        shown = "could not be judged" if equality is None else f"{equality:.2f}"
        return Decision(
            champion,
            False,
            f"{challenger.model} beats the champion, and serves its groups of users too unequally: worst over best "
            f"{shown}, asked {least_equality:.2f}",
        )
    return Decision(challenger, True, f"{challenger.model} beats the champion: {_interval(over_champion)}")


def _interval(measured: dict[str, float]) -> str:
    return f"ndcg@10 {measured['difference']:+.4f} [{measured['low']:+.4f}, {measured['high']:+.4f}]"
