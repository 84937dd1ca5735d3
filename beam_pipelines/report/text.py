"""Numbers, times and texts formatted for readers, whatever the locale and the time zone."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_ELLIPSIS = "…"
_DASH = "–"


def clean(text: str) -> str:
    """Replace every character that HTML or XML cannot hold by U+FFFD; tab and newline stay."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def number(value: int) -> str:
    """Format 1234567 as "1,234,567"."""
    return f"{value:,}"


def compact(value: float) -> str:
    """Format 1500 as "1.5k", for ticks of an axis."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def decimal(value: float, form: str = ".3f") -> str:
    """Format -0.1234 as "−0.123", with a true minus sign and the format specification `form`."""
    return format(value, form).replace("-", "−")


def share(part: float, whole: float) -> str:
    """Format `part` of `whole` in percent; a tiny share is "<0.01%", not "0%"."""
    if not part:
        return "0%"
    percent = 100 * part / whole
    if percent < 0.01:
        return "<0.01%"
    if percent >= 99.95:
        return "100%" if part == whole else ">99.9%"
    return f"{percent:.2f}%" if percent < 1 else f"{percent:.1f}%"


def size(count: int) -> str:
    """Format a number of bytes in decimal units."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return plural(count, "byte")


def duration(seconds: float) -> str:
    """Format seconds as "12.3 s", "4 min 5 s" or "2 h 10 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def moment(iso: str) -> str:
    """Format an ISO 8601 time as "2026-11-23 08:00 UTC"."""
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def noun(count: float, singular: str) -> str:
    """Return "template" for a count of 1, and "templates" for any other."""
    return singular if count == 1 else f"{singular}s"


def plural(count: int, singular: str) -> str:
    """Return "1 template", "2 templates"."""
    return f"{number(count)} {noun(count, singular)}"


def listing(parts: list[str]) -> str:
    """Join parts as "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def human(code: str) -> str:
    """Return a code such as `broken_json` as words."""
    return code.replace("_", " ")


def shorten(text: str, width: int) -> str:
    """Fit `text` on one line of `width` columns, two for an East Asian character, by cutting its middle."""
    text = " ".join(clean(text).split())
    if columns(text) <= width:
        return text
    head, tail = _fit(text, (width - 1) * 2 // 3), _fit(text[::-1], (width - 1) // 3)[::-1]
    return f"{head}{_ELLIPSIS}{tail}"


def columns(text: str) -> int:
    """Return the width of a line of text in columns, two for an East Asian character."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _fit(text: str, width: int) -> str:
    taken = 0
    for position, character in enumerate(text):
        taken += columns(character)
        if taken > width:
            return text[:position]
    return text


def flatten(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield settings as (dotted name, value as text); a value that is neither text nor a mapping as JSON."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def with_interval(entry: Mapping[str, float | None], form: str = ".4f") -> tuple[str, str]:
    """Format the `value` of an estimate and its interval from `low` to `high`; an undefined value is a dash."""
    value, low, high = (entry[name] for name in ("value", "low", "high"))
    if value is None:
        return _DASH, ""
    return decimal(value, form), "" if low is None or high is None else f"{decimal(low, form)} to {decimal(high, form)}"


def signed(entry: Mapping[str, float | None]) -> tuple[str, str]:
    """Format a difference and its interval, each number with its sign."""
    return with_interval(entry, "+.4f")
