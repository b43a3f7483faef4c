"""Generations that outlive their connection: queue, log and outcome."""
