"""Jobs: the store that records them, the workers that process them, and the supervision of those workers."""
