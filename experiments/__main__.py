"""Shell of the station: `python -m experiments analyse | judge | plan | check`."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys import interval, station
from recsys.errors import RecsysError
from recsys.settings import load_settings


def main() -> dict[str, Any]:
    arguments = _parse()
    if arguments.command == "check":
        from recsys.experiments import read_declaration

        declared = read_declaration(arguments.file or load_settings().experiments_file).experiments
        return {"experiments": {one.name: one.shares for one in declared}}
    if arguments.command == "plan":
        return _plan(arguments)
    if arguments.command == "judge":
        from experiments.judge import judge

        return judge(load_settings(), datetime.now(UTC))
    from experiments.analyse import analyse

    return analyse(load_settings(), interval.from_arguments(arguments), arguments.control)


def _plan(arguments: Namespace) -> dict[str, Any]:
    from experiments import planning
    from experiments.sequential import Sequence

    try:
        smallest = _smallest(planning, arguments)
        effect = planning.effect_of_proportions(arguments.baseline, arguments.treated)
        single = planning.users_needed(effect, arguments.alpha, arguments.power)
        look_every = planning.spacing_of_looks(2 * single) if arguments.look_every is None else arguments.look_every
        looks = planning.sequential_users(effect, look_every, arguments.alpha, arguments.power)
    except ValueError as error:
        way_out = "Give two different rates between 0 and 1, alpha below power, and fewer than a thousand looks"
        raise RecsysError("plan", error, way_out) from error
    sequence = Sequence.tuned_for(looks, arguments.alpha)
    return {
        **smallest,
        "single_look_users_per_variant": single,
        "always_valid_users_in_all": looks,
        "look_every": look_every,
        "always_valid_power": planning.sequential_power(effect, looks, look_every, sequence),
        "always_valid_power_at_single_look_users": planning.sequential_power(
            effect, round(2 * single), look_every, sequence
        ),
    }


def _smallest(planning: Any, arguments: Namespace) -> dict[str, float]:
    """Return the smallest treated rate above the baseline that `--users` in each variant show, if they are given."""
    if arguments.users is None:
        return {}
    effect = planning.smallest_effect(arguments.users, arguments.alpha, arguments.power)
    return {"smallest_treated_found": planning.rate_at(arguments.baseline, effect)}


def _parse() -> Namespace:
    parser = ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    analyse = commands.add_parser("analyse", help="what do the users of each variant do?")
    interval.add_arguments(analyse)
    analyse.add_argument("--control", help="the variant that the others are compared with; default as declared")
    commands.add_parser("judge", help="what is seen of the version on its way to champion?")
    plan = commands.add_parser("plan", help="how many users does a difference of two rates need?")
    plan.add_argument("baseline", type=float, help="rate of the control, e.g. 0.10")
    plan.add_argument("treated", type=float, help="rate that should be found, e.g. 0.11")
    plan.add_argument("--alpha", type=float, default=0.05)
    plan.add_argument("--power", type=float, default=0.8)
    plan.add_argument("--users", type=int, help="in each variant: tell the smallest difference that they show, too")
    plan.add_argument(
        "--look-every",
        type=int,
        help="users between two looks; default 1000, or as many thousands as leave a few hundred looks",
    )
    check = commands.add_parser("check", help="is the declaration right?")
    check.add_argument("file", type=Path, nargs="?", help="default: the one that the settings name")
    return parser.parse_args()


if __name__ == "__main__":
    station.run(main)
