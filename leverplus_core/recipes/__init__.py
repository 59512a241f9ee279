"""Recipes: the whole experiment on a page."""
