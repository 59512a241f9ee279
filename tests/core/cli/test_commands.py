"""The command line as typed: help without imports, commands of plugins, and mistakes in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core.cli.app import COMMANDS
from leverplus_core.plugins.commands import command_help
from leverplus_core.recipes.loader import bundled
from leverplus_core.recipes.recipe import Recipe

Install = Callable[..., str]
Cli = Callable[..., tuple[int, str, str]]

GROUP = "leverplus.commands"
GREET = '''
    def main(name: str = "you") -> None:
        """Say hello.

        And nothing else.
        """
        print(f"hello {name}")
'''


def _one_line(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 2 and out == "" and len(err.splitlines()) == 1, result
    return err


def test_help_lists_every_command_with_its_line(cli: Cli) -> None:
    code, out, err = cli("--help")
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    words = (
        "run sweep validate plan audit candidates leaderboard compare headroom power report show sql recipes plugins"
    )
    for word in (*words.split(), "import", "export", "data"):
        (line,) = [line for line in out.splitlines() if line.startswith(f"  {word} ")]
        assert len(line.split()) > 3, line
    assert cli()[1] == out, "without a command the help is shown"
    code, out, _ = cli("candidates")
    assert code == 0 and "balance  Balance a candidates file" in out


@pytest.mark.parametrize("words", COMMANDS)
def test_each_command_has_a_help_page(cli: Cli, words: str) -> None:
    code, out, _ = cli(*words.split(), "--help")
    assert code == 0 and out.startswith(f"Usage: leverplus {words} ")
    line = command_help(str(COMMANDS[words])).split("\n")[0]
    assert line or words in ("import", "export"), "the line is read from the source"
    assert " ".join(line.split()) in " ".join(out.split())
    assert not re.search(r"<(str|int|float|path|list)\b|\[\[|\.\.\.\}", out), "words for values, no types of Python"


def test_a_command_of_a_plugin_is_listed_and_called(cli: Cli, install: Install) -> None:
    install("acme-greet", GREET, GROUP, "greet")
    install("acme-wave", GREET, GROUP, "greetings  wave")
    out = cli("--help")[1]
    assert "  greet        Say hello.\n" in out and "  greetings    Commands: wave.\n" in out
    assert cli("greet", "--name", "anna") == (0, "hello anna\n", "")
    assert "wave  Say hello." in cli("greetings", "--help")[1]
    assert cli("greetings", "wave")[1] == "hello you\n"
    assert "no command 'greetings wav'. Did you mean 'wave'?" in _one_line(cli("greetings", "wav"))


def test_help_imports_no_command_and_one_that_fails_is_one_line(cli: Cli, install: Install) -> None:
    module = install("acme-greet", "import a_module_that_nobody_has\n" + GREET.replace("\n    ", "\n"), GROUP, "greet")
    code, out, err = cli("--help")
    assert (code, err) == (0, "") and "Say hello." in out and module not in sys.modules
    assert _one_line(cli("greet")) == (
        "leverplus: command 'greet' of acme-greet 1.0 cannot be imported from acme_greet:main: "
        "ModuleNotFoundError: No module named 'a_module_that_nobody_has'.\n"
    )
    assert cli("recipes")[0] == 0


@pytest.mark.parametrize(
    ("point", "code", "told"),
    [
        ("run", GREET, "command 'run' of acme-greet 1.0 is not used: leverplus has a command of this name."),
        ("candidates greet", GREET, "'candidates greet' of acme-greet 1.0 is not used: leverplus has a command of"),
        (
            "greet",
            "other = 1",
            "command 'greet' of acme-greet 1.0 is broken: AttributeError: module 'acme_greet' has no",
        ),
        ("greet", "class main: ...", "command 'greet' of acme-greet 1.0 is broken: acme_greet:main is not a function."),
        ("greet", "def main(", "command 'greet' of acme-greet 1.0 is broken: SyntaxError"),
        ("gre:et", GREET, "command 'gre:et' of acme-greet 1.0 is not used: its name is not made of words"),
    ],
)
def test_a_command_that_cannot_be_used_is_one_warning(
    cli: Cli, install: Install, point: str, code: str, told: str
) -> None:
    install("acme-greet", code, GROUP, point)
    status, out, err = cli("--help")
    assert status == 0 and told in err and len(err.splitlines()) == 1
    assert "Run a recipe" in out
    if point == "greet":
        code_of_call, out, err = cli("greet")
        assert code_of_call == 2 and out == "" and "acme-greet 1.0 is broken" in err.splitlines()[-1]
    assert cli("recipes")[2] == "", "a command of ours does not look for others"


def test_a_command_with_annotations_that_cannot_be_read_names_its_distribution(cli: Cli, install: Install) -> None:
    install("acme-greet", GREET.replace("name: str =", "name: 'nobody_knows' ="), GROUP, "greet")
    assert cli("--help")[0] == 0
    assert "command 'greet' of acme-greet 1.0: acme_greet:main is not a command" in _one_line(cli("greet"))


def test_a_command_that_two_plugins_add_is_neither_s(
    cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme-one", GREET, GROUP, "greet")
    install("acme-two", GREET.replace("hello", "bye"), GROUP, "greet")
    assert "command 'greet' is in acme-one 1.0" in cli("--help")[2]
    monkeypatch.setenv("LEVERPLUS_DISABLE", "acme-one")
    assert cli("greet") == (0, "bye you\n", "")


def test_a_mistake_in_a_command_is_one_line_that_says_what_exists(cli: Cli) -> None:
    assert _one_line(cli("validat")).startswith("leverplus: no command 'validat'. Did you mean 'validate'? Known: ")
    assert "no command 'candidates inspct'. Did you mean 'inspect'?" in _one_line(cli("candidates", "inspct"))
    assert "No such option: --util" in (error := _one_line(cli("run", "--util"))) and "`leverplus run --help`" in error
    assert "Missing argument 'RUN'. See `leverplus show --help`" in _one_line(cli("show"))
    assert "no stage named 'balanse'. Did you mean 'balance'?" in _one_line(cli("run", "--until", "balanse"))
    assert "no stage named 'x'" in _one_line(cli("run", "--redo", "x"))


def test_a_bundled_recipe_is_shown_as_its_file_and_whole(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("recipes", "show", "demo")
    assert code == 0 and out == bundled()["demo"].read_text(encoding="utf-8")
    code, out, _ = cli("recipes", "show", "demo", "--set", "seed=3", "--full")
    assert code == 0 and "\nseed: 3\n" in out and "\ndata_seed: 0\n" in out
    (tmp_path / "own.yaml").write_text(out, encoding="utf-8")
    assert Recipe.load("own.yaml").values() == Recipe.load("demo", ["seed=3"]).values()
    assert json.loads(cli("recipes", "show", "own.yaml", "--json")[1])["seed"] == 3
    assert "no recipe 'demoo'" in _one_line(cli("recipes", "show", "demoo"))
    assert "demo-mined" in cli("recipes")[1], "without a command it lists them"


@pytest.mark.parametrize("command", ["run", "validate", "plan", "sweep"])
def test_what_takes_a_recipe_takes_its_parts_and_imported_data(cli: Cli, command: str) -> None:
    out = cli(command, "--help")[1]
    for option in ("dataset", "model", "encoder", "sampler", "selector", "balancer", "reward", "imported", "name"):
        assert f"--{option} " in out, option
    code, out, err = cli(command, "demo", "--sampler", "nosuch")
    assert (code, out) == (2, "") and err.splitlines()[-1].startswith(
        "leverplus: no sampler named 'nosuch' in --sampler"
    )


def test_a_plan_says_that_its_recipe_does_not_run_here_and_counts_all_the_same(cli: Cli) -> None:
    small = [word for text in ("dataset.train=20", "dataset.validation=10") for word in ("--set", text)]
    fits, too_large = cli("plan", *small, "--set", "sampler.k=19", "--json"), cli("plan", *small, "--json")
    assert fits[0] == too_large[0] == 0 and "this does not run here" not in fits[2]
    assert "this does not run here: sampler.k" in too_large[2]
    assert json.loads(too_large[1])["stages"][-1]["stage"] == "total"


def test_the_shell_completes_commands(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LEVERPLUS_COMPLETE", "source_bash")
    assert "complete -o default -F _leverplus_completion leverplus" in cli()[1]
    monkeypatch.setenv("_LEVERPLUS_COMPLETE", "complete_bash")
    for line, found in (("leverplus lea", ["leaderboard"]), ("leverplus runs re", ["rename"])):
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        assert cli()[1].split() == found


def test_the_demo_ends_with_what_to_do_next() -> None:
    makefile = Path(__file__).parents[3] / "Makefile"
    done = subprocess.run(["make", "-n", "-f", makefile, "demo"], capture_output=True, text=True, check=True)
    after = done.stdout.rpartition("leverplus run\n")[2]
    for words in ("leverplus report latest", "leverplus compare latest:", "docs/tutorial.md"):
        assert words in after


def test_a_tilde_is_the_home_folder(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LEVERPLUS_REGISTRY", "sqlite:///~/r.db")
    assert str(tmp_path / "home" / "r.db") in _one_line(cli("leaderboard"))
    monkeypatch.setenv("LEVERPLUS_WORK", "~/work")
    settings = ("--set", "dataset.train=20", "--set", "dataset.validation=10")
    assert cli("plan", *settings, "--json")[0] == 0
    assert not (tmp_path / "~").exists()


def test_plugins_says_which_parts_and_commands_are_broken(cli: Cli, install: Install) -> None:
    install("acme-greet", "other = 1", GROUP, "greet")
    part = '"""Nothing."""\nfrom leverplus_core import hookimpl\n@hookimpl\ndef leverplus_rewards():\n'
    install("acme-part", part + "    return {'lost': 'acme_part:Lost', 'plain': 'acme_part:hookimpl'}\n")
    code, out, _ = cli("plugins", "--json")
    status = {row["name"]: row["status"] for row in json.loads(out)}
    assert code == 0 and status["mixed"] == "ok"
    assert status["greet"].startswith("broken: AttributeError")
    assert status["lost"] == "broken: AttributeError: module 'acme_part' has no attribute 'Lost'"
    assert status["plain"] == "ok", "only an import can tell"
    code, out, _ = cli("plugins", "--check", "--json")
    status = {row["name"]: row["status"] for row in json.loads(out)}
    assert code == 1 and "is not a leverplus_core.Reward" in status["plain"]
