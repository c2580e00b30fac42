"""Storage of recordings, and of the parts that workers share while they process a recording together."""
