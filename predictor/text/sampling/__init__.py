"""How the next token of each row is chosen from its logits."""
