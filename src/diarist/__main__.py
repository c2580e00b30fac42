"""``python -m diarist`` is ``diarist``."""

from diarist.cli import main

if __name__ == "__main__":
    main(prog_name="diarist")
