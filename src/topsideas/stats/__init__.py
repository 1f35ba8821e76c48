"""Arrays in, numbers out: per-op statistics and what accurate enough means."""
