"""The contract tests of a plugin's own project: a pytest plugin, found by pytest where leverplus is installed.

    import pytest
    from leverplus_core.testing import check

    @pytest.mark.leverplus_parts("leverplus-acme")
    def test_part_keeps_its_contract(leverplus_part):
        check(leverplus_part)

The test runs once for each part that the distribution registers. Settings that a part cannot be built without are the
fixture `leverplus_settings`, which a project may override. Nothing of leverplus is imported for tests that use none
of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from leverplus_core.plugins.contracts import Part

MARK = "leverplus_parts"


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, so that --strict-markers knows it."""
    about = "run once for each leverplus part of a distribution, the fixture leverplus_part"
    config.addinivalue_line("markers", f"{MARK}(distribution): {about}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `leverplus_part` runs once for each part of the distribution that its marker names."""
    if "leverplus_part" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker(MARK)
    if mark is None or len(mark.args) != 1:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: mark it @pytest.mark.{MARK}('DISTRIBUTION').")
    from leverplus_core.plugins.installed import canonical
    from leverplus_core.plugins.manager import Catalog

    own = canonical(mark.args[0])
    entries = [entry for entry in Catalog.load(disabled="").entries() if canonical(entry.distribution) == own]
    if not entries:
        raise pytest.UsageError(f"{mark.args[0]} registers no part of leverplus here. Run: pip install -e .")
    names = [f"{entry.kind or 'plugin'}-{entry.name}" for entry in entries]
    metafunc.parametrize("leverplus_part", entries, ids=names, indirect=True)


@pytest.fixture
def leverplus_settings() -> Mapping[str, Mapping[str, Any]]:
    """Settings of parts by their names, for parts that cannot be built from their defaults; none here."""
    return {}


@pytest.fixture
def leverplus_part(request: pytest.FixtureRequest, leverplus_settings: Mapping[str, Mapping[str, Any]]) -> Part:
    """A part of the distribution that the marker names, built. One that is broken fails with its reason."""
    from leverplus_core.errors import LeverplusError
    from leverplus_core.plugins.manager import Catalog

    entry = request.param
    wrong = f"{entry.kind or 'plugin'} '{entry.name}' is {entry.status}"
    if entry.status == "ok":
        try:
            # The class itself, not a guarded one: a check says more than the guard's line.
            part = Catalog.load(disabled="").part_class(entry.kind, entry.name)
        except LeverplusError as error:
            wrong = str(error)
        else:
            return part.model_validate(dict(leverplus_settings.get(entry.name, {})))
    pytest.fail(wrong, pytrace=False)
