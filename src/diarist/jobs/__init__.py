"""Jobs: the store that is the truth about them, the worker that does them, and what keeps the worker alive."""
