from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = """# Results

```
$ leverplus leaderboard
demo (e74b): demo_world, qwen
method       0 shots       1 shot      2 shots
──────────────────────────────────────────────
zero_shot       53.3            -            -
          [48.5, 58.1]
random             -         54.8         57.6
                     [50.0, 59.6] [52.7, 62.3]
text_knn           -         58.0         61.6
image_knn          -         57.5         63.2
grpo               -         88.0         61.0
oracle             -         92.3         92.3
```

```
$ leverplus compare demo:grpo demo:text_knn
a = demo:grpo
b = demo:text_knn
shots    n    a    b             a - b      p verdict
─────────────────────────────────────────────────────
    1  100 80.0 58.0  +22.0 [+9.0, +35.0]  0.001 a better
    1 1000 88.0 58.0 +30.0 [+23.4, +36.6] <0.001 a better
    2 1000 61.0 61.6   -0.6 [-4.0, +2.8]  0.700 no difference seen
```

```
$ leverplus headroom demo:grpo
shots    n random text_knn grpo oracle  share of the gap
────────────────────────────────────────────────────────
    1 1000   54.8     58.0 88.0   92.3 88.4 [83.2, 93.3]
    2 1000   57.6     61.6 61.0   92.3   9.8 [-5.0, 25.2]
```
"""


@pytest.fixture(scope="module")
def headlines() -> ModuleType:
    spec = importlib.util.spec_from_file_location("headlines", ROOT / "tools" / "headlines.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["headlines"] = module
    spec.loader.exec_module(module)
    return module


def test_readme_and_changelog_say_what_the_results_pages_show(headlines: ModuleType) -> None:
    for name in headlines.QUOTING:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert headlines.REGION.search(text)
        assert headlines.filled(text, ROOT / "docs" / "results") == text


def test_the_sentence_follows_from_the_verdicts_at_the_largest_sample(headlines: ModuleType) -> None:
    assert headlines.headline(PAGE) == (
        "On 1,000 questions `grpo` outperforms `text_knn` at 1 shot (+30.0 [+23.4, +36.6]); no difference between "
        "`grpo` and `text_knn` is seen at 2 shots (-0.6 [-4.0, +2.8]): accuracy of the first minus the second in "
        "points, with intervals corrected for 3 comparisons."
    )
    worse = PAGE.replace("<0.001 a better", "<0.001 b better").replace("+30.0 [+23.4, +36.6]", "-30.0 [-36.6, -23.4]")
    assert "`grpo` is outperformed by `text_knn` at 1 shot (-30.0 [-36.6, -23.4]);" in headlines.headline(worse)


def test_the_table_has_the_printed_numbers(headlines: ModuleType) -> None:
    lines = headlines.table(PAGE).splitlines()
    assert lines[0] == "|  | 1 shot | 2 shots |"
    assert "| `random` | 54.8 | 57.6 |" in lines and "| `grpo` | **88.0** | **61.0** |" in lines
    assert lines[-2:] == [
        "| `grpo` minus `text_knn`, corrected interval | [+23.4, +36.6] | [-4.0, +2.8] |",
        "| share of the gap from random to oracle, 95% | [83, 93] | [-5, 25] |",
    ]


def test_regions_are_written_with_their_indentation_and_the_rest_is_left(headlines: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "demo.md").write_text(PAGE, encoding="utf-8")
    text = "- before\n  <!-- headline demo: begin -->\n  old\n  <!-- headline: end -->\nafter\n"
    made = headlines.filled(text, tmp_path)
    assert made.startswith("- before\n  <!-- headline demo: begin -->\n  On 1,000 questions `grpo`")
    assert made.endswith("\n  <!-- headline: end -->\nafter\n") and "old" not in made
    assert all(line.startswith("  ") for line in made.splitlines()[1:-1])
    assert headlines.filled(made, tmp_path) == made


def test_a_page_without_a_comparison_is_named(headlines: ModuleType) -> None:
    with pytest.raises(ValueError, match="shows no `leverplus compare`"):
        headlines.headline("# Nothing")
