"""`leverplus plugins`: what is installed, one part of it, and a project for a part of your own."""
