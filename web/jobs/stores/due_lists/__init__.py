"""Where the deliveries that are due are kept: beside the jobs, in either store."""
