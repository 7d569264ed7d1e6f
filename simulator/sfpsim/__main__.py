"""``python -m sfpsim``: the command line."""

from sfpsim.cli import main

if __name__ == "__main__":
    main()
