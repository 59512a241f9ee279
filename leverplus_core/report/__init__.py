"""What is shown of the registry: the leaderboard and paired comparisons. Pure functions of what is recorded."""

from leverplus_core.report.comparison import compare_rows, compare_table
from leverplus_core.report.leaderboard import leaderboard_markdown, leaderboard_rows, leaderboard_table

__all__ = ["compare_rows", "compare_table", "leaderboard_markdown", "leaderboard_rows", "leaderboard_table"]
