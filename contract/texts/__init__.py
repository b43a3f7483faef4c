"""What a request for a text may hold: a conversation, its tools, how it is sampled and what shape it is to have."""
