"""The stretch of data that a task works on; every task is a function of it and may run twice."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from recsys.columns import DOMAINS
from recsys.errors import RecsysError

HISTORY = "history"


@dataclass(frozen=True)
class Interval:
    """Events with `since` ≤ instant < `as_of`, both at 00:00 UTC; without `since`, all before `as_of`."""

    domains: tuple[str, ...]
    as_of: date
    since: date | None = None

    @property
    def end(self) -> datetime:
        return datetime.combine(self.as_of, time(), UTC)

    @property
    def start(self) -> datetime | None:
        return datetime.combine(self.since, time(), UTC) if self.since else None

    @property
    def partition(self) -> str:
        """Label of the raw partition that landing this interval replaces: `history`, or the first day."""
        return self.since.isoformat() if self.since else HISTORY

    @property
    def key(self) -> str:
        """Key of this interval's receipts."""
        return f"{','.join(self.domains)}@{self.as_of.isoformat()}"


def add_arguments(parser: ArgumentParser) -> None:
    """Add `--as-of`, `--since` and `--domains` to a station's parser."""
    parser.add_argument("--as-of", required=True, help="day (UTC) whose midnight ends the data, exclusive")
    parser.add_argument("--since", default=None, help="first day (UTC) of the data; without it, the whole history")
    parser.add_argument("--domains", default="movies", help=f"comma-separated, of {', '.join(DOMAINS)}")


def from_arguments(arguments: Namespace) -> Interval:
    """Return the interval that the arguments name.

    Raises:
        RecsysError: a day is no ISO date, the interval is empty, or a domain is unknown.
    """
    try:
        as_of = date.fromisoformat(arguments.as_of)
        since = date.fromisoformat(arguments.since) if arguments.since else None
    except ValueError as error:
        raise RecsysError("--as-of or --since", error, "Give days as YYYY-MM-DD") from error
    domains = tuple(sorted(set(filter(None, arguments.domains.split(",")))))
    unknown = [domain for domain in domains if domain not in DOMAINS]
    if unknown or not domains:
        raise RecsysError("--domains", arguments.domains, f"Choose among {', '.join(DOMAINS)}")
    if since and since >= as_of:
        raise RecsysError("--since", since, f"It must lie before --as-of {as_of}")
    return Interval(domains, as_of, since)
