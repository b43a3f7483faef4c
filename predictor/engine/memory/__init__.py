"""How much memory the slots may take, and what happens when it runs out."""
