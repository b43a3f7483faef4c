"""GGUF files, which are converted once into a folder that transformers reads as any other."""
