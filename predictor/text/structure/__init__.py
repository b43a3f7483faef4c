"""Texts that are held to a structure: JSON of a schema, a regular expression, a choice, or any grammar."""
