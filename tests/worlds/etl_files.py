"""Tiny raw files in the official formats, good ones and broken ones, with what must become of each line."""

import bz2
import gzip
from pathlib import Path

NOW = "2020-06-15T00:00:00+00:00"  # the instant of landing in these worlds
AS_OF = "2020-06-01"

# user::film::stars::seconds, all of them usable and before AS_OF
RATINGS = (
    "1::1193::5::978300760",
    "1::661::3::978302109",
    "2::1193::4::978298413",
    "2::1::0.5::978299000",
    "17::1::5::1583020800",  # 2020-03-01
)
FILMS = (
    "1::Toy Story (1995)::Animation|Children's|Comedy",
    "661::James and the Giant Peach (1996)::Animation|Children's|Musical",
    "73::Misérables, Les (1995)::Drama|Musical",
    "1193::One Flew Over the Cuckoo's Nest (1975)::Drama",
)
USERS = ("1::F::1::10::48067", "2::M::56::16::70072")

# line of ratings.dat → why it is refused
BROKEN_RATINGS = {
    "": None,  # a blank line is no row
    "no separators at all": "broken_row",
    "1::1193::5": "broken_row",
    "1::1193::5::978300760::9": "broken_row",
    "3\t1193\t5\t978300760": "broken_row",
    "3::1193::5::978300760\x1f": "broken_row",
    "::1193::5::978300760": "empty_id",
    "  ::1193::5::978300760": "empty_id",
    "3::::5::978300760": "empty_id",
    "x3::1193::5::978300760": "invalid_id",
    "-3::1193::5::978300760": "invalid_id",
    "3::11.93::5::978300760": "invalid_id",
    "3::99999999999999999999::5::978300760": "invalid_id",
    "3'; drop table raw.users; --::1193::5::978300760": "invalid_id",
    "3::1193::::978300760": "not_a_number",
    "3::1193::five::978300760": "not_a_number",
    "3::1193::4d::978300760": "not_a_number",
    "3::1193::nan::978300760": "not_a_number",
    "3::1193::Infinity::978300760": "not_a_number",
    "3::1193::4,5::978300760": "not_a_number",
    "3::1193::0::978300760": "rating_out_of_range",
    "3::1193::5.5::978300760": "rating_out_of_range",
    "3::1193::-1::978300760": "rating_out_of_range",
    "3::1193::1e30::978300760": "rating_out_of_range",
    "3::1193::978300760::5.0": "rating_out_of_range",  # swapped columns
    "3::1193::5::": "occurred_at_unparsable",
    "3::1193::5::2000-12-31": "occurred_at_unparsable",
    "3::1193::5::-1": "occurred_at_unparsable",
    "3::1193::5::978300760.5": "occurred_at_unparsable",
    "3::1193::5::99999999999999999999": "occurred_at_unparsable",
    "3::1193::5::1592265601": "occurred_at_in_the_future",  # landing + 1 day + 1 second
    "3::1193::5::978300760000": "occurred_at_in_the_future",  # milliseconds
    "1::1193::4::978300760": "duplicate_event",  # of RATINGS[0], with fewer stars
    "001::1193::5::978300760": "duplicate_event",  # the same user, in other words
}
UNDECODABLE = b"3::119\xff3::5::978300760"  # → undecodable_text
LONG = "3::1193::5::978300760" + " " * 1_000_001  # → record_too_long

NOT_YET = (
    "4::1193::5::1590969600",  # AS_OF itself: the interval ends before it
    "4::661::5::1592265600",  # landing + 1 day: a clock may run ahead by that much
)

BROKEN_FILMS = {
    "::No id (1990)::Drama": "empty_id",
    "x::No number (1990)::Drama": "invalid_id",
    "7::::Drama": "empty_title",
    "8:: (1999)::Drama": "empty_title",
    f"9::{'long ' * 300}::Drama": "title_too_long",
    "10::Film::with separator (1999)::Drama": "broken_row",
    "1::Toy Story again (1995)::Comedy": "duplicate_item",
}


def write(path: Path, lines: tuple[str | bytes, ...] | list[str | bytes], encoding: str = "utf-8") -> Path:
    """Write lines to a file, compressed if its name says so, and return its path."""
    text = b"".join((line if isinstance(line, bytes) else line.encode(encoding)) + b"\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    pack = {".gz": lambda data: gzip.compress(data, mtime=0), ".bz2": bz2.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(text))
    return path


def movielens_1m(folder: Path, ratings=RATINGS, films=FILMS, users=USERS, suffix: str = "") -> Path:
    """Write a small release in the layout of MovieLens 1M and return its folder."""
    write(folder / f"ratings.dat{suffix}", list(ratings))
    write(folder / f"movies.dat{suffix}", list(films), "latin-1")
    write(folder / f"users.dat{suffix}", list(users))
    return folder
