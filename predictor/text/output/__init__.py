"""From token ids to the events of a text: decoding, reasoning, stop sequences."""
