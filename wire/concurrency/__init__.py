"""Whose turn it is, and which of several comes first."""
