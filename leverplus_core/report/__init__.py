"""What is shown: leaderboard, grid, comparisons, the health of candidates, what a balancer did.

Pure functions of what is recorded.
"""

from leverplus_core.report.balance import balance_table
from leverplus_core.report.comparison import compare_rows, compare_table
from leverplus_core.report.grid import Arm, grid_rows
from leverplus_core.report.health import health_view, mined_view, shapes_table
from leverplus_core.report.leaderboard import leaderboard_rows
from leverplus_core.report.leaderboard_layout import leaderboard_markdown, leaderboard_table
from leverplus_core.report.sweep import sweep_rows, sweep_table

__all__ = [
    "Arm",
    "balance_table",
    "compare_rows",
    "compare_table",
    "grid_rows",
    "health_view",
    "leaderboard_markdown",
    "leaderboard_rows",
    "leaderboard_table",
    "mined_view",
    "shapes_table",
    "sweep_rows",
    "sweep_table",
]
