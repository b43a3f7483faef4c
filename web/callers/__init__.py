"""Who calls: each request belongs to a caller, and each caller has its jobs and its share."""
