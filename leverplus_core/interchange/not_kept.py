"""What an import leaves out, and why: counts, with the first few as examples."""

from __future__ import annotations

from collections import Counter

EXAMPLES = 3


class NotKept:
    """Counts by reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, example: str) -> None:
        self.counts[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(example)

    def summary(self) -> dict[str, dict[str, object]]:
        """reason -> {count, examples}"""
        return {reason: {"count": count, "examples": self.examples[reason]} for reason, count in self.counts.items()}

    def __str__(self) -> str:
        return "; ".join(f"{count:,} x {reason}" for reason, count in self.counts.items())
