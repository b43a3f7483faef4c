"""What only a GPU can show: `scripts/gpu-check`."""
