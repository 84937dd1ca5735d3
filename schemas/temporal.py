"""Dates, times, timestamps and durations as Python values, whatever packages are installed.

Each is the type of the `datetime` module that holds it exactly; otherwise its text in the same format, with all digits:
nanoseconds that are not whole microseconds, and years outside 1..9999.
"""

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SECOND = 10**9
_DAY = 86_400
_EPOCH = datetime(1970, 1, 1)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def temporal_values(array: pa.Array) -> list[object] | None:
    """Return the values of an array of dates, times, timestamps or durations; None for any other type."""
    kind = array.type
    if pa.types.is_date32(kind):
        return [None if days is None else _date(days) for days in array.cast(pa.int32()).to_pylist()]
    if pa.types.is_date64(kind):
        return [None if ms is None else _date(ms // (1000 * _DAY)) for ms in array.cast(pa.int64()).to_pylist()]
    if not (pa.types.is_time(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind)):
        return None
    counts = array.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).to_pylist()
    scale = _SECOND // _PER_SECOND[kind.unit]
    nanoseconds = (None if count is None else count * scale for count in counts)
    if pa.types.is_timestamp(kind):
        return [None if count is None else _timestamp(count, kind.tz) for count in nanoseconds]
    convert = _time if pa.types.is_time(kind) else _duration
    return [None if count is None else convert(count) for count in nanoseconds]


def _date(days: int) -> object:
    if 1 <= days + _EPOCH_ORDINAL <= date.max.toordinal():
        return date.fromordinal(days + _EPOCH_ORDINAL)
    return str(np.datetime64(days, "D"))


def _timestamp(nanoseconds: int, zone: str | None) -> object:
    """Return a point in time, in `zone` if it is known; otherwise as text in UTC."""
    seconds, fraction = divmod(nanoseconds, _SECOND)
    found = _zone(zone) if zone is not None else None
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
        if zone is not None:
            moment = moment.replace(tzinfo=UTC).astimezone(found or UTC)
    except OverflowError:
        days, rest = divmod(seconds, _DAY)
        clock = (_EPOCH + timedelta(seconds=rest)).time()
        return f"{np.datetime64(days, 'D')} {clock}{_digits(fraction)}{'' if zone is None else '+00:00'}"
    if fraction % 1000 == 0:
        moment = moment.replace(microsecond=fraction // 1000)
        return str(moment) if zone is not None and found is None else moment
    text = str(moment)
    length = len("YYYY-MM-DD HH:MM:SS")
    return text[:length] + _digits(fraction) + text[length:]


@cache
def _zone(name: str) -> tzinfo | None:
    """Return a time zone by its name or offset; None if it is unknown."""
    offset = re.fullmatch(r"([+-])(\d\d):?(\d\d)?", name)
    if offset is not None:
        minutes = int(offset[2]) * 60 + int(offset[3] or 0)
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes)) if minutes < 24 * 60 else None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such key, no valid key, a folder of zones
        return None


def _time(nanoseconds: int) -> object:
    seconds, fraction = divmod(nanoseconds, _SECOND)
    if 0 <= seconds < _DAY:
        clock = (_EPOCH + timedelta(seconds=seconds)).time()
        return clock.replace(microsecond=fraction // 1000) if fraction % 1000 == 0 else f"{clock}{_digits(fraction)}"
    return str(_duration(nanoseconds))


def _duration(nanoseconds: int) -> object:
    if nanoseconds % 1000 == 0:
        try:
            return timedelta(microseconds=nanoseconds // 1000)
        except OverflowError:
            pass
    seconds, fraction = divmod(nanoseconds, _SECOND)
    days, rest = divmod(seconds, _DAY)
    before = f"{days} day{'' if abs(days) == 1 else 's'}, " if days else ""
    return f"{before}{timedelta(seconds=rest)}{_digits(fraction)}"


def _digits(nanoseconds: int) -> str:
    """Return the fraction of a second as Python prints it: six digits, nine if needed, none for a whole second."""
    if nanoseconds == 0:
        return ""
    return f".{nanoseconds // 1000:06}" if nanoseconds % 1000 == 0 else f".{nanoseconds:09}"
