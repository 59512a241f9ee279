"""The registry: runs and their results in SQL."""
