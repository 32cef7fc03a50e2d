"""Options that several commands share, and what --folder, --json and --figure do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pydantic import BaseModel

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML file; every key left out has its default."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Override one setting; may be given repeatedly."
    ),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Also write the result to this file.")
]
Folder = Annotated[
    Path | None, typer.Option("--folder", help="Empty working folder; a temporary one by default.")
]
Slices = Annotated[int, typer.Option(min=1, help="Slices of a phantom series.")]
Pixels = Annotated[int, typer.Option(min=16, help="Rows and columns of a slice.")]
FigureFile = Annotated[
    Path | None, typer.Option("--figure", help="Draw the result (.png, .pdf, .svg).")
]


def setting(key: str, value: str) -> str:
    """An option of its own as --set takes it; the value stays the text that it is."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


@contextmanager
def working_folder(given: Path | None) -> Iterator[Path]:
    """The folder given, or a temporary one: it goes at the end, and stays after an error."""
    if given is not None:
        yield given
        return
    made = Path(mkdtemp(prefix="raypipe-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def draw(figure: Callable[[], Figure], path: Path | None) -> None:
    """Draw a figure where --figure names a file."""
    if path is not None:
        from raypipe.evaluate.plot_style import save_figure

        save_figure(figure(), path)


def save_json(result: BaseModel, path: Path | None) -> None:
    """Write a result where --json names a file."""
    if path is not None:
        path.write_text(result.model_dump_json(indent=2) + "\n")
