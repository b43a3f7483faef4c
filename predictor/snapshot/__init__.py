"""A loaded predictor as files, and its restore in the place of a start: `python -m predictor.snapshot`.

CRIU writes the memory of a predictor that waits at the gate, and brings it back in another container. The launcher,
which is process 1 there, tries that for DEADLINE_SECONDS, and starts the predictor as usual after anything odd.
"""
