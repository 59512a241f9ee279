"""Candidates: measured demonstration sequences, by question."""
