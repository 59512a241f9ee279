"""The pytest plugin: one test runs over all parts of a distribution, and says what is wrong with each."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.core.conftest import Install

pytest_plugins = "pytester"

TEST = """
    import pytest
    from leverplus_core.testing import check

    @pytest.mark.leverplus_parts("Acme.Two")
    def test_contract(leverplus_part):
        check(leverplus_part)
"""
REWARDS = '''
    from leverplus_core import Reward, hookimpl

    class Good(Reward):
        """Says the same of all."""
        value: float

        def compute(self, group):
            return [self.value for _ in group]

        def needs(self):
            return frozenset()

    class Bad(Good):
        """Is not finite."""
        value: float = 1.0

        def compute(self, group):
            return [float("nan") for _ in group]

    @hookimpl
    def leverplus_rewards():
        return {"good": "acme_two:Good", "bad": "acme_two:Bad", "absent": "acme_two:Absent"}
'''
SETTINGS = """
    import pytest

    @pytest.fixture
    def leverplus_settings():
        return {"good": {"value": 2.0}}
"""


def test_each_part_of_a_distribution_is_a_test_with_its_own_reason(install: Install, pytester: pytest.Pytester) -> None:
    install("acme-two", REWARDS)
    pytester.makeconftest(SETTINGS)
    pytester.makepyfile(TEST)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--strict-markers")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    text = result.stdout.str()
    assert "FAILED" in text and "AssertionError: rewards must be finite: [nan]" in text
    assert "reward 'absent' of acme-two 1.0 cannot be imported" in text


def test_a_distribution_that_is_not_installed_says_what_to_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert "Acme.Two registers no part of leverplus here. Run: pip install -e ." in result.stdout.str()


def test_a_plugin_that_cannot_be_read_fails_with_its_status(install: Install, pytester: pytest.Pytester) -> None:
    install("acme-two", "import a_module_that_nobody_has")
    pytester.makepyfile(TEST)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    assert "broken: ModuleNotFoundError" in result.stdout.str()


def test_a_run_of_pytest_that_uses_nothing_of_it_imports_nothing_of_it() -> None:
    code = "import sys, leverplus_core.pytest_plugin; print(*sorted(m for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert not {"torch", "numpy", "pydantic"} & imported
    assert {m for m in imported if m.startswith("leverplus_core")} == {"leverplus_core", "leverplus_core.pytest_plugin"}
