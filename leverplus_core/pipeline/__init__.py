"""The pipeline: stages in their order, run, planned and audited."""
