"""Enflame's GCU, through the vendor's ``TopsInference`` module."""
