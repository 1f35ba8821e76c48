"""What compiles and runs a model under a plan: one file or folder per engine."""
