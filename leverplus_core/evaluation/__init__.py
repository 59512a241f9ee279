"""Evaluation: every method on the same questions."""
