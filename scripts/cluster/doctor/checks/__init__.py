"""What doctor asks of a cluster, a module for each part of it."""
