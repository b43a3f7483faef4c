"""`scripts/bench peers`: the predictor beside other servers of texts, which take turns on the same machine."""
