"""Recordings of jobs, and the parts that workers share while they process one recording together."""
