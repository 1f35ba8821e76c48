"""The report as a page: one file that opens without a network."""
