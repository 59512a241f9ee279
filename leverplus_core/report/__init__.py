"""What is shown: leaderboard, grid, comparisons, the health of candidates, what a balancer did.

Functions of what is recorded; each `..._table` or `..._view` draws for 80 columns.
"""
