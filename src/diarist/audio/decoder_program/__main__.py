"""Start the decoder process: ``python -I -S -B __main__.py REQUEST``."""

import os
import sys
from importlib import import_module

if __name__ == "__main__":
    # The package is imported by its folder, because importing ``diarist.audio`` would load its metadata and NumPy.
    sys.path.append(__file__.rsplit(os.sep, 2)[0])
    import_module("decoder_program.main").main()
