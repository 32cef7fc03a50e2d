"""Hours of the day in which a run may work: "22:00-06:00", several of them, in a time zone.

In: the text of a config, moments. Out: whether a moment lies within, and when the next one does.
Does not know: what works then.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

_MINUTE = timedelta(minutes=1)
_SEARCHED = timedelta(days=2)

Span = tuple[time, time]


def parse_span(text: str) -> Span:
    """ "22:00-06:00" as begin and end, full minutes; an end before the begin is on the next day.

    Raises:
        ValueError: names the text and the rule.
    """
    begin, _, end = text.partition("-")
    try:
        span = (time.fromisoformat(begin.strip()), time.fromisoformat(end.strip()))
    except ValueError as error:
        raise ValueError(f"hours {text!r}: write HH:MM-HH:MM, such as 22:00-06:00") from error
    if any(t.second or t.microsecond for t in span):
        raise ValueError(f"hours {text!r}: begin and end are full minutes, such as 22:00-06:00")
    if span[0] == span[1] or any(t.tzinfo is not None for t in span):
        raise ValueError(f"hours {text!r}: begin and end differ and name no time zone")
    return span


def is_open(spans: Sequence[Span], zone: ZoneInfo, moment: datetime) -> bool:
    """Whether a moment (with a time zone of its own) lies within any span; always without spans."""
    clock = moment.astimezone(zone).time()
    return not spans or any(_within(clock, span) for span in spans)


def next_opening(spans: Sequence[Span], zone: ZoneInfo, moment: datetime) -> datetime:
    """The moment itself where it lies within a span, else the first full minute that does.

    Minutes are walked through one by one in absolute time, so that the days on which clocks change
    need no rules of their own.
    """
    if is_open(spans, zone, moment):
        return moment
    minute = moment.astimezone(UTC).replace(second=0, microsecond=0)
    while minute < moment + _SEARCHED:
        minute += _MINUTE
        if is_open(spans, zone, minute):
            return minute
    raise AssertionError("a span of at least a minute opens within two days")


def _within(clock: time, span: Span) -> bool:
    begin, end = span
    if begin < end:
        return begin <= clock < end
    return clock >= begin or clock < end
