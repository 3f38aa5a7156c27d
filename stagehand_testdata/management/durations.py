"""Lengths of time as people type them."""

from __future__ import annotations

import argparse
import datetime as dt
import re

from ..conf import MOST_DAYS

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d{1,6})([smhd])")
_LONGEST = dt.timedelta(days=MOST_DAYS)


def duration(text: str) -> dt.timedelta:
    """`90s`, `45m`, `2h`, `7d`; for argparse."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration; type a number and s, m, h or d, like 2h")
    length = dt.timedelta(**{_UNITS[found[2]]: int(found[1])})
    if length > _LONGEST:
        raise argparse.ArgumentTypeError(f"'{text}' is too long; type no more than {_LONGEST.days}d")
    return length


def pause(text: str) -> float:
    """Seconds, plain or as a duration, and never none; for argparse."""
    seconds = float(text) if re.fullmatch(r"\d{1,6}", text) else duration(text).total_seconds()
    if not seconds:
        raise argparse.ArgumentTypeError("0 is no pause; type a number of seconds from 1 up, or like 2m")
    return seconds
