from __future__ import annotations

from leverplus_core.progress import Silent, Watched


def test_what_is_watched_is_the_innermost_task_and_how_far_it_is() -> None:
    progress = Watched(Silent())
    assert progress.depth == 0 and progress.within(0) is None
    with progress.task("stage 2 of 9", 9) as outer:
        outer.advance(2)
        assert progress.depth == 1 and progress.within(1) is None
        assert progress.within(0) == {"label": "stage 2 of 9", "done": 2, "total": 9}
        with progress.task("search", 800) as inner:
            inner.advance()
            inner.advance(9)
            assert progress.within(1) == {"label": "search", "done": 10, "total": 800}
        assert progress.within(1) is None
    assert progress.depth == 0
