"""Scoring: prompts, the response cache, measurements and the InfoScore beam search."""
