"""How a CPU computes a model: its threads, its kernels and its types of numbers."""
