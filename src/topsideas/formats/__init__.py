"""Writers of a plan for other tools: one file each, and one line in the registry."""
