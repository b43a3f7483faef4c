"""Sleeping without leaving: where weights wait, how memory is given back, and the tasks that wake an engine."""
