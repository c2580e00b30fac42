"""``python app.py`` starts the service: the same as ``diarist serve``."""

from diarist.cli import main

if __name__ == "__main__":
    main(["serve"])
