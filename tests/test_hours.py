from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.config import load_config
from raypipe.errors import ConfigError
from raypipe.hours import is_open, next_opening, parse_span

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = (parse_span("22:00-06:00"),)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("clock", "wanted"), [("21:59", False), ("22:00", True), ("05:59", True), ("06:00", False)]
)
def test_a_night_is_open_over_midnight(clock: str, wanted: bool) -> None:
    assert is_open(NIGHT, BERLIN, _at(f"2026-01-15T{clock}+01:00")) is wanted


def test_several_spans_and_none() -> None:
    spans = (*NIGHT, parse_span("12:30 - 13:00"))
    assert is_open(spans, BERLIN, _at("2026-07-01T12:45+02:00"))
    assert not is_open(spans, BERLIN, _at("2026-07-01T13:00+02:00"))
    assert is_open((), BERLIN, _at("2026-07-01T13:00+02:00"))


def test_the_hours_are_those_of_the_zone() -> None:
    moment = datetime(2026, 1, 15, 21, 30, tzinfo=UTC)  # 22:30 in Berlin
    assert is_open(NIGHT, BERLIN, moment) and not is_open(NIGHT, ZoneInfo("UTC"), moment)


def test_the_next_opening_is_told_also_when_clocks_change() -> None:
    assert next_opening(NIGHT, BERLIN, _at("2026-01-15T09:00:30+01:00")) == _at(
        "2026-01-15T22:00+01:00"
    )
    inside = _at("2026-01-15T23:00:30+01:00")
    assert next_opening(NIGHT, BERLIN, inside) == inside
    # on 29 March 2026 the hour from 02:00 to 03:00 does not exist in Berlin
    skipped = (parse_span("02:15-02:45"),)
    assert next_opening(skipped, BERLIN, _at("2026-03-29T01:00+01:00")) == _at(
        "2026-03-30T02:15+02:00"
    )
    assert next_opening(skipped, BERLIN, datetime(2026, 3, 29, 1, 55, tzinfo=BERLIN)) == _at(
        "2026-03-30T02:15+02:00"
    )
    # on 25 October 2026 that hour comes twice
    twice = datetime(2026, 10, 25, 2, 50, tzinfo=BERLIN)
    assert next_opening(skipped, BERLIN, twice) == _at("2026-10-25T02:15+01:00")


@settings(max_examples=60)
@given(
    st.times().filter(lambda t: t.minute > 0),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(BERLIN)),
)
def test_what_is_told_is_open_and_no_earlier_minute_is(begin: object, moment: datetime) -> None:
    span = (parse_span(f"{str(begin)[:5]}-00:00"),)
    opening = next_opening(span, BERLIN, moment)
    assert is_open(span, BERLIN, opening)
    assert opening >= moment


@pytest.mark.parametrize(
    "text",
    ["22-6", "22:00", "25:00-06:00", "06:00-06:00", "22:00-06:00+01", "22:00:10-22:00:50"],
)
def test_hours_that_are_none_are_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.schedule\.hours"):
        load_config(overrides=[f'run.schedule.hours=["{text}"]'])


def test_a_zone_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="Europe/Nowhere"):
        load_config(overrides=["run.schedule.time_zone=Europe/Nowhere"])
