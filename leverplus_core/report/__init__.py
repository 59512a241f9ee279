"""What is shown of the registry: leaderboard, grid and paired comparisons. Pure functions of what is recorded."""

from leverplus_core.report.comparison import compare_rows, compare_table
from leverplus_core.report.grid import Arm, grid_rows
from leverplus_core.report.leaderboard import leaderboard_markdown, leaderboard_rows, leaderboard_table

__all__ = [
    "Arm",
    "compare_rows",
    "compare_table",
    "grid_rows",
    "leaderboard_markdown",
    "leaderboard_rows",
    "leaderboard_table",
]
