"""What differs between operating systems: Linux, macOS and Windows.

The other packages use no module or function that only some of them have; they call the functions of this one.
"""
