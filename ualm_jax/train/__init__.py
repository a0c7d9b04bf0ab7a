"""Losses, optimiser, the training step, the loop around it, checkpoints, metrics."""
