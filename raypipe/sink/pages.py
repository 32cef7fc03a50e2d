"""Self-contained HTML pages: one a series, and an index of all.

In: result rows, a function that loads a row's volume. Out: files that need no network.
Does not know: where rows and volumes come from.

A row needs series_key and status; whatever else it lacks is left out of its page.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, count
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raypipe.errors import SeriesError
from raypipe.sink.page_views import NOTICE, PageOptions, Row, View, series_view
from raypipe.sink.plain_words import spaced
from raypipe.types import Volume

__all__ = ["NOTICE", "PageOptions", "write_pages"]


def write_pages(
    rows: Iterable[Row],
    load_volume: Callable[[Row], Volume | None],
    folder: Path | str,
    options: PageOptions | None = None,
) -> list[Path]:
    """Write index.html and a page for every row into a folder, which is made where needed.

    Args:
        rows: result rows; findings as lists of mappings.
        load_volume: called once for each row that is "ok"; None or a SeriesError leaves the
            pictures out.
        folder: existing pages of the same series are replaced.
        options: how they look.

    Returns:
        The index first, then one path a row.
    """
    options = options or PageOptions()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment()
    paths, entries = [], []
    names = {"index.html"}
    for row in rows:
        name = _file_name(str(row["series_key"]), names)
        view = series_view(row, _load(row, load_volume), options)
        path = folder / name
        page = environment.get_template("pages_series.html.j2").render(view, options=options)
        path.write_text(page, encoding="utf-8")
        paths.append(path)
        entries.append(_index_entry(view, name))
    index = folder / "index.html"
    page = environment.get_template("pages_index.html.j2").render(
        entries=entries,
        counts=_counts(entries),
        options=options,
        notice=NOTICE,
    )
    index.write_text(page, encoding="utf-8")
    return [index, *paths]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spaced"] = spaced
    environment.filters["number"] = _number
    return environment


def _number(value: float | None, digits: int = 0) -> str:
    """A number for people; a dash where there is none."""
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:.{digits}f}".replace("-", "−")  # noqa: RUF001


def _file_name(key: str, taken: set[str]) -> str:
    """A safe file name that no other row of this run has, also where letters' case is ignored."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", key)[:80] or "series"
    stem = f"{stem}_" if stem.lower() == "index" else stem
    names = (f"{stem}{end}.html" for end in chain([""], (f"-{n}" for n in count(2))))
    name = next(name for name in names if name.lower() not in taken)
    taken.add(name.lower())
    return name


def _load(row: Row, load_volume: Callable[[Row], Volume | None]) -> Volume | None:
    if row["status"] != "ok":
        return None
    try:
        return load_volume(row)
    except SeriesError:
        return None  # the page says that there are no pictures


def _index_entry(view: View, name: str) -> View:
    report = view["report"]
    return {
        "href": name,
        "key": view["key"],
        "status": view["status"],
        "reason": view["reason"],
        "reason_words": view["reason_words"],
        "kind": view["kind"] or "",
        "body_part": view["body_part"] or "",
        "findings": len(view["findings"]),
        "labels": sorted({f["name"] for f in view["findings"]}),
        "flags": [flag["slug"] for flag in view["flags"]],
        "needs_review": bool(report and report["needs_review"]),
    }


def _counts(entries: Sequence[View]) -> list[tuple[str, int, str]]:
    """(what, how many, CSS class) for the top of the index."""
    by_status = Counter(entry["status"] for entry in entries)
    counts = [("series", len(entries), "all")]
    counts += [(status, by_status[status], status) for status in ("ok", "rejected", "failed")]
    counts.append(("findings", sum(entry["findings"] for entry in entries), "all"))
    counts.append(("need review", sum(entry["needs_review"] for entry in entries), "review"))
    return counts
