"""Compare the scoring engine with stock transformers, piece by piece: `python -m tools.bench --help`."""
