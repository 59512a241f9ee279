"""A local web page over the registry: leaderboard, runs while they run, and every answer to every question.

Everything is read, nothing is written: each request opens the registry for itself, for reading alone. Pages are
templates with one small script that they do without. Needs the extra `view` (starlette, uvicorn, jinja2).
"""
