"""Values as a person reads them. Pure; the templates' filters."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from outbox_relay.schema import Status

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60))


def rows(count: int, *, most: int | None = None) -> str:
    """
    A number of rows; *most* is where counting ends.

    >>> rows(1234567), rows(100000, most=100000)
    ('1,234,567', '100,000 or more')
    """
    more = most is not None and count >= most
    return f"{count:,}" + (" or more" if more else "")


def duration(seconds: float | None) -> str:
    """
    A time in its two largest units.

    >>> duration(0.0123), duration(4.25), duration(150), duration(90061), duration(None)
    ('12 ms', '4.2 s', '2 min 30 s', '1 d 1 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    parts: list[str] = []
    for name, size in (*_UNITS, ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {name}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def rate(per_second: float) -> str:
    """
    A number of events a second.

    >>> rate(0), rate(0.05), rate(3.14), rate(31415.9)
    ('0', '0.05', '3.1', '31,416')
    """
    if per_second == 0:
        return "0"
    if per_second < 1:
        return f"{per_second:.2f}"
    return f"{per_second:.1f}" if per_second < 100 else f"{per_second:,.0f}"


def moment(when: datetime | None) -> str:
    """UTC, to the second; the page says once that it is UTC."""
    return "–" if when is None else when.strftime("%Y-%m-%d %H:%M:%S")


def state(status: int) -> str:
    """
    The word for a status.

    >>> state(1)
    'produced'
    """
    return Status(status).name.lower()
