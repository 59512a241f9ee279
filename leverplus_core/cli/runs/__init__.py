"""`leverplus runs`: the runs of a registry, what their user calls them, and their removal."""
