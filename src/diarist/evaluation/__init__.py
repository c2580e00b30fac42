"""How good an answer is: references read, answers compared to them, the comparison shown.

Needs the ``bench`` extra, which is imported when something is scored and not before.
"""
