"""What the shell commands of this folder run."""
