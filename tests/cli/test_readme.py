"""The commands of the README are ones that the command line takes."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from raypipe.cli import app

README = Path(__file__).resolve().parents[2] / "README.md"
COMMANDS = re.findall(r"^ +raypipe (bench .+)$", README.read_text().replace("\\\n", ""), re.M)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_benchmark_gets_what_it_needs(line: str) -> None:
    command: Any = typer.main.get_command(app)
    arguments = shlex.split(line, comments=True)
    while isinstance(command, TyperGroup):
        command = command.get_command(typer.Context(command), arguments.pop(0))
    command.make_context("raypipe", arguments)
