"""``python -m sfpsim``: the command line."""

from sfpsim.cli import main

main()
