"""Workers: long-lived states elsewhere that do tasks. What they do, executors do not know."""
