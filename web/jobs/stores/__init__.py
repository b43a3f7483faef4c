"""Where jobs are kept: in the memory of one replica, or in a Redis that all share."""
