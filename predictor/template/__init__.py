"""A process that has imported everything and loaded nothing: predictors of one machine are forked from it.

It has one thread, no weights and no context of CUDA, so that what is forked is what a fresh process would be.
"""
