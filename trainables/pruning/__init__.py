"""Cutting weights and channels."""
