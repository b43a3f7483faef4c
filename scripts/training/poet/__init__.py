"""The parts of training the poet, which train_poet.py puts together."""
