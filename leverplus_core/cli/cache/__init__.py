"""`leverplus cache`: what the folder of artifacts holds, and how to make it smaller."""
