"""The connections of clients: their parser, their bounds, and how long each may be kept."""
