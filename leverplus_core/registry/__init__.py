"""The registry: the SQL of runs."""
