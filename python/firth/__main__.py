"""`python -m firth` is the command `firth`."""

from firth.cli import main

main()
