"""The commands of README, model cards and configs are ones that the command line takes."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from raypipe.cli import app

ROOT = Path(__file__).resolve().parents[2]
CARDS = ("raypipe/model/weights/small.md", "raypipe/report/adapters/default/README.md")
FILES = [ROOT / name for name in ("README.md", *CARDS)]
COMMANDS = [
    line
    for file in FILES
    for line in re.findall(r"^ {4}raypipe (.+)$", file.read_text().replace("\\\n", ""), re.M)
    if line.count("'") % 2 == 0  # a setting that is written over several lines
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one_that_the_command_line_takes(line: str) -> None:
    command: Any = typer.main.get_command(app)
    arguments = shlex.split(line, comments=True)
    while isinstance(command, TyperGroup) and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    command.make_context("raypipe", arguments)
    for word in arguments:
        assert not word.startswith("configs/") or (ROOT / word).is_file()


def test_the_readme_shows_every_command() -> None:
    known: Any = typer.main.get_command(app)
    assert set(known.commands) - {"demo"} <= {line.split()[0] for line in COMMANDS}
