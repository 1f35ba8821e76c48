"""Any engine in a child process with limits: what crashes, hangs or swells there is a verdict."""
