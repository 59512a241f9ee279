"""`leverplus registry`: a registry as a whole."""
