"""Execution: where prompts are computed: in this process, in several processes, or on a Ray cluster."""
