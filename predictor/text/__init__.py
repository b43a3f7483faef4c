"""Text: any causal language model of transformers, in one running batch."""
