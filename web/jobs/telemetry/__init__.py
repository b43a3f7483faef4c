"""What is told of the work on jobs."""
