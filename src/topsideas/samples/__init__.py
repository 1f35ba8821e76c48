"""Where input arrays and golden outputs come from."""
