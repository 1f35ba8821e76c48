"""The use cases: auto, manual, finalize. The only glue between the cores."""
