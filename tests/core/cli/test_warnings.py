"""A warning of ours is one line of the command line, wherever it comes from."""

from __future__ import annotations

import warnings

import pytest

from leverplus_core.cli import main
from leverplus_core.errors import LeverplusWarning


def test_our_warnings_are_one_line_and_others_python_s_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        others: list[str] = []
        monkeypatch.setattr(warnings, "showwarning", lambda message, *where: others.append(str(message)))
        monkeypatch.setattr("sys.argv", ["leverplus", "--version"])
        with pytest.raises(SystemExit):
            main()
        capsys.readouterr()
        warnings.warn("the cache is full; this run continues.", LeverplusWarning, stacklevel=1)
        assert capsys.readouterr().err == "leverplus: warning: the cache is full; this run continues.\n"
        warnings.warn("something old\x1b[31m", DeprecationWarning, stacklevel=1)
        assert others == [r"something old\x1b[31m"] and not capsys.readouterr().err
