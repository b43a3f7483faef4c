"""What the jobs in memory take, and how it is given back."""
