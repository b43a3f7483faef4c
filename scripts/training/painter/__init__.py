"""The parts of training the painter, which train_painter.py puts together."""
