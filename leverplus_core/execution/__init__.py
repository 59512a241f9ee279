"""Execution: where prompts are computed."""
