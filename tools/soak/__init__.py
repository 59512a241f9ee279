"""Tries hard to break leverplus and writes what held: `python -m tools.soak`, or `make soak`.

A topic is a list of cases that do not depend on each other; what a case found is a line in the topic's file, so that
a soak that was stopped goes on with the cases that are left.
"""
