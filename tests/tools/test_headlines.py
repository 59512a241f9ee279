from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ENDPOINT = """# Results

```
$ leverplus run demo --seeds 3
primary endpoint of demo: mean over 1, 2, 3, 4 shots, n = 1000, 3 seeds
                                      difference in points  mark
──────────────────────────────────────────────────────────────────
mrt - text_image_knn (best baseline)   +10.4 [+7.3, +13.4]  better
mrt - sft                                +0.6 [-1.9, +3.2]  no difference seen

                                     minus
method             accuracy text_image_knn   gap closed copied prompts
──────────────────────────────────────────────────────────────────────
zero_shot              59.3          -10.5            -      -       0
               [53.6, 64.8]  [-12.7, -8.2]
mrt                    80.1          +10.4         48.2   12.5  52,000
               [76.9, 83.0]  [+7.3, +13.4] [40.8, 55.5]
text_image_knn         69.8              -            -   10.0       0
               [64.8, 74.2]
mrt                    72.5           +2.8            -      -       -
+blank_images  [68.3, 76.3]   [+0.6, +5.0]
in %, differences in points, paired by question, with 95% intervals in brackets
best baseline on 100 held-out train questions: text_image_knn
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


def test_the_picture_of_the_readme_shows_the_accuracies_of_its_table() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("<!-- table demo: begin -->")[1].split("<!-- table: end -->")[0]
    drawn = re.findall(r">(\d+\.\d)</text>", (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8"))
    assert len(drawn) > 10 and sorted(drawn) == sorted(
        re.findall(r"^\| \*{0,2}`[^|]+\| (\d+\.\d) ", table, re.MULTILINE)
    )


def test_regions_are_written_with_their_indentation_and_the_rest_is_left(headlines: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "demo.md").write_text(ENDPOINT, encoding="utf-8")
    text = "- before\n  <!-- headline demo: begin -->\n  old\n  <!-- headline: end -->\nafter\n"
    made = headlines.filled(text, tmp_path)
    assert made.startswith(
        "- before\n  <!-- headline demo: begin -->\n  On 1,000 questions, mean over 1, 2, 3, 4 shots"
    )
    assert made.endswith("\n  <!-- headline: end -->\nafter\n") and "old" not in made
    assert all(line.startswith("  ") for line in made.splitlines()[1:-1])
    assert headlines.filled(made, tmp_path) == made


def test_a_page_without_a_primary_endpoint_is_named(headlines: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "demo.md").write_text("# Nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="shows no primary endpoint"):
        headlines.filled("<!-- table demo: begin -->\n<!-- table: end -->", tmp_path)


def test_the_sentence_and_the_table_are_those_of_the_printed_endpoint(headlines: ModuleType) -> None:
    (found,) = headlines.endpoints(ENDPOINT)
    assert headlines.headline(found) == (
        "On 1,000 questions, mean over 1, 2, 3, 4 shots, 3 seeds: `mrt` is better than the best baseline "
        "`text_image_knn` (+10.4 [+7.3, +13.4]); no difference between `mrt` and `sft` is seen (+0.6 [-1.9, +3.2]); "
        "points of accuracy, corrected for 2 comparisons."
    )
    assert headlines.table(found).splitlines() == [
        "|  | accuracy | minus `text_image_knn` | gap closed | copied | prompts |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| `zero_shot` | 59.3 [53.6, 64.8] | -10.5 [-12.7, -8.2] | - | - | 0 |",
        "| **`mrt`** | 80.1 [76.9, 83.0] | +10.4 [+7.3, +13.4] | 48.2 [40.8, 55.5] | 12.5 | 52,000 |",
        "| `text_image_knn` | 69.8 [64.8, 74.2] | - | - | 10.0 | 0 |",
        "| `mrt+blank_images` | 72.5 [68.3, 76.3] | +2.8 [+0.6, +5.0] | - | - | - |",
    ]


def test_what_run_prints_is_what_the_tool_reads(headlines: ModuleType) -> None:
    """The view of `leverplus.report.headline` at 80 columns, with names as long as they get."""
    import io

    from rich.console import Console

    from leverplus_core.report.headline import Headline, headline_view
    from leverplus_core.report.primary import UNMARKED, Best

    about = {"n": 400, "ci_low": 0.5, "ci_high": 0.7, "share": 0.5, "share_low": 0.4, "share_high": 0.6, "copied": 0.1}
    own = {"delta": 0.1, "delta_low": 0.05, "delta_high": 0.15}
    rows = [
        {"method": name, "role": "trained", "primary": name == "grpo", "accuracy": 0.6, "prompts": 1234, **about, **own,
         **UNMARKED}
        for name in ("grpo", "grpo+shuffled_answers")
    ]  # fmt: skip
    compared = {"over": [1, 2], "questions": 400, "corrected_low": -0.123, "corrected_high": 0.321, "delta": 0.1}
    compared |= {"mark": "no difference seen", "comparisons": 1}
    primary = [{"method": "grpo", "baseline": "text_image_knn", **compared}]
    best = Best("text_image_knn", "held_out", 100, {})
    made = Headline("demo", ["a"] * 3, 3, [1, 2], 400, "grpo", best, rows, primary, [], 7, [], [])
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(headline_view(made))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    page = f"```\n$ leverplus run demo --seeds 3\n{out.getvalue()}```\n"
    (found,) = headlines.endpoints(page)
    said = headlines.headline(found)
    assert "no difference between `grpo` and the best baseline `text_image_knn` is seen (+10.0 [-12.3, +32.1])" in said
    assert (
        headlines.table(found).splitlines()[3].startswith("| `grpo+shuffled_answers` | 60.0 [50.0, 70.0] | +10.0 [+5.0")
    )


def test_no_page_quotes_a_difference_that_no_results_page_prints(headlines: ModuleType, tmp_path: Path) -> None:
    assert headlines.contradictions(ROOT) == []
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "results" / "demo.md").write_text(ENDPOINT, encoding="utf-8")
    other = "It gained +10.4\n[+7.3, +13.4] points, and zero_shot -10.5 [-12.7, -8.2]."
    (tmp_path / "docs" / "other.md").write_text(other, encoding="utf-8")
    (tmp_path / "README.md").write_text("It gained +9.9 [+7.3, +13.4] points.", encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text("", encoding="utf-8")
    assert headlines.contradictions(tmp_path) == ["README.md: 9.9 [+7.3, +13.4]"]
