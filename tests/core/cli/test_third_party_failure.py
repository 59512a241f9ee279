"""What a command prints when a plugin's part fails: one line, nothing half-written, and the trace for who asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core import write_groups
from leverplus_core.testing import tiny_groups

Cli = Callable[..., tuple[int, str, str]]
Install = Callable[..., str]

BALANCER = """
    import sys
    from leverplus_core import Balancer, hookimpl

    class Odd(Balancer):
        \"\"\"Fails.\"\"\"

        def select(self, group, rng):
            print("on the way")
            BODY

    @hookimpl
    def leverplus_balancers():
        return {"odd": __name__ + ":Odd"}
"""
NAMED = "leverplus: balancer 'odd' of acme-odd 1.0: select() of question q0"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return None", "returned None: it is None. It must return some of the 14 candidates that it was given, each"),
        ("sys.exit(0)", "raised SystemExit: 0 (acme_odd.py:10). LEVERPLUS_TRACE=1 shows the trace."),
        ("1 / 0", "raised ZeroDivisionError: division by zero (acme_odd.py:10). LEVERPLUS_TRACE=1 shows the trace."),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt (acme_odd.py:10). LEVERPLUS_TRACE=1 shows the trace."),
    ],
)
def test_a_part_that_fails_in_a_command_is_one_line(
    cli: Cli, install: Install, tmp_path: Path, body: str, says: str
) -> None:
    install("acme-odd", BALANCER.replace("BODY", body))
    write_groups(tmp_path / "candidates.jsonl", {"q0": tiny_groups()[2]})
    code, out, err = cli("candidates", "balance", "candidates.jsonl", "-o", "out.jsonl", "--balancer", "odd", "--json")
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "on the way" and len(err.splitlines()) == 2
    assert err.splitlines()[1].startswith(f"{NAMED} {says}")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_trace_is_printed_where_it_is_asked_for(
    cli: Cli, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme-odd", BALANCER.replace("BODY", "1 / 0"))
    write_groups(tmp_path / "candidates.jsonl", {"q0": tiny_groups()[2]})
    monkeypatch.setenv("LEVERPLUS_TRACE", "1")
    code, _, err = cli("candidates", "balance", "candidates.jsonl", "-o", "out.jsonl", "--balancer", "odd")
    assert code == 2 and "Traceback" in err and "in select" in err
    assert err.splitlines()[-1].startswith(f"{NAMED} raised ZeroDivisionError")


def test_a_plugin_s_command_that_fails_is_one_line(cli: Cli, install: Install) -> None:
    install("acme-greet", "def main():\n    1 / 0\n", group="leverplus.commands", point="greet")
    code, _, err = cli("greet")
    assert code == 2 and err.splitlines()[-1] == (
        "leverplus: command 'greet' of acme-greet 1.0 raised ZeroDivisionError: division by zero (acme_greet.py:2). "
        "LEVERPLUS_TRACE=1 shows the trace."
    )


def test_a_plugin_s_command_may_end_with_a_code_of_its_own(cli: Cli, install: Install) -> None:
    install("acme-greet", "def main():\n    raise SystemExit(7)\n", group="leverplus.commands", point="greet")
    assert cli("greet")[0] == 7
