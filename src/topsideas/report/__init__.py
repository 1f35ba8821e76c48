"""Renders a finished result; computes nothing."""
