"""The scoring engine shared by the backends: a prefix tree of the prompts, tree attention, an image cache, batching.

`settings` and `rows` need no torch, so that a recipe can be validated and planned without it; the rest does. The design
is described in `docs/design/010-scoring-engine.md`.
"""
