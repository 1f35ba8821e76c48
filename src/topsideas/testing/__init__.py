"""Conformance suites and planted models, shipped for engine and strategy authors."""
