"""Plugins: the hooks, what a part is, and the catalog that finds them."""
