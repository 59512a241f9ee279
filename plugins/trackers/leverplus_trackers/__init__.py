"""Trackers: listeners that keep a run in MLflow, W&B or trackio (`--track mlflow`); one file each."""
