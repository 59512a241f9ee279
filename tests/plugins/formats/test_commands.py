"""`leverplus import` and `leverplus export`: a command per part, its settings as options."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("group", ["import", "export"])
def test_the_help_page_lists_parts_without_importing_them(group: str) -> None:
    program = f"""
import sys
from leverplus_core.cli import main
sys.argv = ["leverplus", "{group}", "--help"]
try:
    main()
finally:
    heavy = {{"torch", "numpy", "leverplus_formats.rl_data", "leverplus_formats.json_file"}}
    print("imported:", *sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("imported:\n"), done.stdout + done.stderr
    for name in ("beams", "embeddings", "rl-data"):
        assert any(line.split()[:1] == [name] and len(line) > 30 for line in done.stdout.splitlines())


def test_the_settings_of_a_part_are_options_of_its_command(cli: Cli) -> None:
    code, out, _ = cli("import", "rl-data", "--help")
    assert code == 0 and "--correct-threshold" in out and "[default: 0.5]" in out
    assert (
        "--table" in cli("import", "table", "--help")[1]
        and "--correct-threshold" not in cli("import", "beams", "--help")[1]
    )


@pytest.mark.parametrize("kind", ["rl-data", "beams", "embeddings", "table"])
def test_a_file_that_is_not_there_is_one_line(kind: str, cli: Cli) -> None:
    for file in ("none.json", "."):
        code, out, err = cli("import", kind, file)
        assert code == 2 and not out and err.count("\n") == 1 and err.startswith("leverplus: ") and file in err


def test_an_unknown_format_is_one_line_that_names_the_others(cli: Cli) -> None:
    code, _, err = cli("import", "rldata", "x.json")
    assert code == 2 and "rldata" in err and "rl-data" in err
