"""Intervals and tests for means of graded accuracies and for differences on the same questions.

- `accuracy_interval`: the mean of one method's scores.
- `paired_difference`: two methods on the same questions, clustered by image, seeds as a second level.
- `corrected`: a family of such differences, Holm's correction, and the marks that follow.
- `detectable_difference`, `questions_needed`: what an evaluation could detect, and the questions that more takes.
- `published_interval`, `unpaired_interval`: what a published accuracy and its sample size imply.
- `share_closed`: the share of the gap from a baseline to the oracle that a method closes.

scipy and statsmodels are imported on first use: a table of recorded results needs neither. The coverage of the
intervals is simulated by `tools/simulate_statistics.py` and shown in `docs/statistics.md`.
"""

from leverplus_core.statistics.accuracy import Interval, accuracy_interval
from leverplus_core.statistics.difference import PairedDifference, paired_difference
from leverplus_core.statistics.family import MARKS, Corrected, Mark, corrected
from leverplus_core.statistics.permutation import sign_flip_p_value
from leverplus_core.statistics.power import POWER, detectable_difference, questions_needed
from leverplus_core.statistics.published import published_interval, unpaired_interval
from leverplus_core.statistics.share import Share, share_closed

__all__ = [
    "MARKS",
    "POWER",
    "Corrected",
    "Interval",
    "Mark",
    "PairedDifference",
    "Share",
    "accuracy_interval",
    "corrected",
    "detectable_difference",
    "paired_difference",
    "published_interval",
    "questions_needed",
    "share_closed",
    "sign_flip_p_value",
    "unpaired_interval",
]
