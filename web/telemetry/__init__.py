"""What web tells of itself: its metrics, and the port where they are read."""
