"""Selectors: what they see, how they choose, and how they are stored."""
