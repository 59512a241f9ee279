"""The files of the Lever-Plus research code, in and out: rl-data, beams and embeddings.

What is imported becomes a folder in leverplus's own formats (`ImportedFolder`), from which training starts without a
VLM. `docs/lever-plus-files.md` says what maps to what.
"""
