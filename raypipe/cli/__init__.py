"""The command line: one module per command, each with its own late imports.

In: arguments. Out: text, and an exit code (0 done, 1 an error with a remedy, 2 wrong usage,
130 interrupted). Does not know: how anything is done.
"""

from raypipe.cli.app import app, main

__all__ = ["app", "main"]
