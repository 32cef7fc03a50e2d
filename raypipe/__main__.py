"""`python -m raypipe` is the command `raypipe`."""

from raypipe.cli import main

main()
