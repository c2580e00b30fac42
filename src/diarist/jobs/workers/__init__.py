"""Worker processes: the pool that supervises them, the job loop, heartbeats, and chunks of long recordings."""
