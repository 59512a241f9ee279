"""The catalogue: what is found, what is refused, and how a mistake is told."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

import leverplus_core
from leverplus_core import Catalog, PluginError, RecipeError
from leverplus_core.cli.app import app
from leverplus_core.plugins.manager import KINDS, Entry

ACME = Path(__file__).parents[2] / "acme" / "leverplus_acme.py"


def _install(folder: Path, distribution: str, code: str, module: str | None = None) -> str:
    """Put a distribution with one entry point on the path, as pip would leave it."""
    module = module or distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[leverplus]\nparts = {module}\n", encoding="utf-8")
    return module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path; modules that tests leave behind are forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


REWARD = """
    from leverplus_core import Reward, hookimpl

    class Flat(Reward):
        \"\"\"All the same.\"\"\"
        value: float = 1.0

        def compute(self, group):
            return [self.value for _ in group]

    @hookimpl
    def leverplus_rewards():
        return {"NAME": __name__ + ":Flat"}
"""


def _of(entries: Sequence[Entry], distribution: str) -> list[Entry]:
    return [entry for entry in entries if entry.distribution == distribution]


def test_built_ins_come_through_the_group_that_third_parties_use() -> None:
    catalog = Catalog.load(disabled="")
    entry = catalog.entry("sampler", "mixed")
    assert (entry.distribution, entry.status) == ("leverplus", "ok")
    assert entry.version == importlib.metadata.version("leverplus")
    assert {e.kind for e in catalog.entries()} == set(KINDS)
    assert catalog.warnings == []
    assert catalog.names("sampler") == ["image_knn", "mixed", "random", "text_knn"]


def test_a_third_party_part_is_listed_and_built(site: Path) -> None:
    _install(site, "acme-flat", REWARD.replace("NAME", "flat"))
    catalog = Catalog.load(disabled="")
    assert _of(catalog.entries(), "acme-flat") == [Entry("reward", "flat", "acme_flat:Flat", "acme-flat", "1.0", "ok")]
    assert catalog.build("reward", "flat", {"value": 3}).model_dump() == {"value": 3.0}
    assert catalog.first_line("reward", "flat") == "All the same."


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import a_module_that_nobody_has", "broken: ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        ("import sys; sys.exit(3)", "broken: SystemExit: 3"),
        ("1 / 0", "broken: ZeroDivisionError: division by zero"),
        ("from leverplus_core import hookimpl", "broken: it has no function marked @hookimpl"),
        (REWARD.replace("leverplus_rewards", "leverplus_reward"), "unknown hook 'leverplus_reward'"),
        (REWARD.replace("NAME", "a:b"), "'a:b' is not a name"),
        (REWARD.replace(' + ":Flat"', ""), "'NAME' must point to 'module:Class', not 'acme_bad'"),
        (REWARD.replace('{"NAME": __name__ + ":Flat"}', '["NAME"]'), "must return a dict"),
        (REWARD.replace("return {", "raise OSError('no disk')\n        return {"), "broken: OSError: no disk"),
    ],
)
def test_a_broken_plugin_is_one_warning_and_its_parts_are_absent(site: Path, code: str, says: str) -> None:
    _install(site, "acme-bad", code)
    catalog = Catalog.load(disabled="")
    (entry,) = _of(catalog.entries(), "acme-bad")
    assert entry.kind == "" and entry.status.startswith("broken: ") and says in entry.status
    (warning,) = catalog.warnings
    assert "acme-bad 1.0" in warning and says in warning and "\n" not in warning
    assert catalog.build("sampler", "random", {"k": 3})
    with pytest.raises(PluginError, match="Not read: acme-bad is broken"):
        catalog.build("reward", "NAME", {})


def test_a_half_registered_plugin_leaves_nothing_behind(site: Path) -> None:
    code = REWARD.replace("NAME", "flat") + "\n    @hookimpl\n    def leverplus_vlms():\n        raise KeyError('x')\n"
    _install(site, "acme-half", code)
    catalog = Catalog.load(disabled="")
    assert [entry.kind for entry in _of(catalog.entries(), "acme-half")] == [""]
    assert "flat" not in catalog.names("reward")


def test_a_clash_names_both_and_replaces_nothing(site: Path) -> None:
    _install(site, "acme-clash", REWARD.replace("NAME", "separated"))
    catalog = Catalog.load(disabled="")
    statuses = {e.distribution: e.status for e in catalog.entries() if e.name == "separated"}
    assert statuses == {"leverplus": "clash with acme-clash", "acme-clash": "clash with leverplus"}
    assert len(catalog.warnings) == 1
    with pytest.raises(PluginError) as error:
        catalog.build("reward", "separated", {}, where="mine.yaml:4")
    for word in ("acme-clash 1.0", "leverplus 0", "mine.yaml:4", "LEVERPLUS_DISABLE"):
        assert word in str(error.value)
    assert catalog.build("reward", "hard_plus_soft", {})


@pytest.mark.parametrize(("off", "winner"), [("acme-clash", "leverplus"), (" Acme_Clash , other", "leverplus")])
def test_disable_settles_a_clash(site: Path, monkeypatch: pytest.MonkeyPatch, off: str, winner: str) -> None:
    _install(site, "acme-clash", REWARD.replace("NAME", "separated"))
    monkeypatch.setenv("LEVERPLUS_DISABLE", off)
    catalog = Catalog.load()
    assert catalog.entry("reward", "separated").distribution == winner
    assert catalog.warnings == []
    assert [e.status for e in _of(catalog.entries(), "acme-clash")] == ["disabled by LEVERPLUS_DISABLE"]


def test_disabling_the_built_ins_lets_a_third_party_take_their_place(site: Path) -> None:
    _install(site, "acme-clash", REWARD.replace("NAME", "separated"))
    catalog = Catalog.load(disabled="leverplus")
    assert catalog.build("reward", "separated", {}).model_dump() == {"value": 1.0}


def test_a_disabled_plugin_is_not_imported(site: Path) -> None:
    module = _install(site, "acme-off", "raise RuntimeError('imported')")
    assert Catalog.load(disabled="acme-off").warnings == []
    assert module not in sys.modules


def test_two_third_parties_may_share_an_entry_point_name(site: Path) -> None:
    """`load_setuptools_entrypoints` would skip the second without a word."""
    for name in ("one", "two"):
        _install(site, f"acme-{name}", REWARD.replace("NAME", name))
    assert {"one", "two"} <= set(Catalog.load(disabled="").names("reward"))


def test_unknown_name_says_where_what_exists_and_what_was_meant() -> None:
    with pytest.raises(PluginError) as error:
        Catalog.load(disabled="").build("sampler", "mixd", {}, where="okvqa.yaml:7")
    expected = "no sampler named 'mixd' in okvqa.yaml:7. Did you mean 'mix'? Known: image_knn, mix, rand, text_knn."
    assert str(error.value) == expected


def test_a_vlm_is_a_model_in_messages() -> None:
    with pytest.raises(PluginError, match="no model named 'qwen'"):
        Catalog.load(disabled="").build("model", "qwen", {})


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("random", {"kk": 3}, "sampler 'random' in a.yaml:2: unknown setting 'kk'. Did you mean 'k'? Known: k."),
        ("random", {"k": "many"}, "sampler 'random' in a.yaml:2: k='many': Input should be a valid integer"),
        ("random", {"k": 0}, "k=0: Input should be greater than or equal to 1. Settings: k."),
        ("mixed", {"text": 0.8, "image": 0.7}, "must not add up to more than 1. Settings: k, text, image, state."),
        ("mixed", {"k": -1, "txt": 1}, "k=-1: Input should be greater than or equal to 1; unknown setting 'txt'."),
    ],
)
def test_a_wrong_setting_is_one_line(name: str, settings: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError) as error:
        Catalog.load(disabled="").build("sampler", name, settings, where="a.yaml:2")
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('":Flat"', '":Missing"', "cannot be imported from acme_bad:Missing: AttributeError"),
        ('__name__ + ":Flat"', '"acme_nowhere:Flat"', "cannot be imported from acme_nowhere:Flat: ModuleNotFoundError"),
        ("(Reward)", "", "acme_bad:Flat is not a leverplus_core.Reward"),
        ("def of", "def off", "acme_bad:Flat lacks the method compute of Reward"),
    ],
)
def test_a_part_that_is_not_what_it_says(site: Path, old: str, new: str, says: str) -> None:
    _install(site, "acme-bad", REWARD.replace(old, new))
    catalog = Catalog.load(disabled="")
    assert catalog.warnings == [], "parts are not imported to be listed"
    with pytest.raises(PluginError, match=r"reward 'NAME' of acme-bad 1\.0") as error:
        catalog.build("reward", "NAME", {})
    assert says in str(error.value)


def test_a_plugin_file_is_tried_unpackaged(tmp_path: Path) -> None:
    file = tmp_path / "my_parts_tried.py"
    file.write_text(textwrap.dedent(REWARD.replace("NAME", "flat")), encoding="utf-8")
    catalog = Catalog.load([file], disabled="")
    assert catalog.entry("reward", "flat").distribution == str(file)
    assert catalog.build("reward", "flat", {"value": 2}).model_dump() == {"value": 2.0}
    assert Catalog.load([file], disabled="").build("reward", "flat", {}), "a second load finds it again"
    del sys.modules["my_parts_tried"]


def test_the_packaged_example_works_as_a_file() -> None:
    reward = Catalog.load([ACME], disabled="").build("reward", "acme", {"gap": 5})
    assert reward.model_dump() == {"gap": 5.0}


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("absent.py", None, "does not exist"),
        ("json.py", "", "a module 'json' exists already"),
        ("my-parts.py", "", "is not a Python module"),
        ("wrong_syntax.py", "def", "cannot be read: SyntaxError"),
        ("no_hooks_here.py", "", "no function marked @hookimpl"),
    ],
)
def test_a_plugin_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, code: str | None, says: str) -> None:
    file = tmp_path / name
    if code is not None:
        file.write_text(code, encoding="utf-8")
    with pytest.raises(PluginError) as error:
        Catalog.load([file], disabled="")
    assert says in str(error.value) and name in str(error.value)


def test_all_is_what_a_plugin_author_imports() -> None:
    assert leverplus_core.__all__ == sorted(leverplus_core.__all__)
    for name in leverplus_core.__all__:
        assert getattr(leverplus_core, name) is not None
    needed = {"hookimpl", "Candidate", "Question", "LeverplusError", "Recipe", "run", "Registry"}
    contracts = {"Dataset", "Encoder", "Sampler", "Model", "Balancer", "Reward"}
    assert needed | contracts <= set(leverplus_core.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = leverplus_core.no_such_name
    assert leverplus_core.__version__ == importlib.metadata.version("leverplus")


def test_listing_imports_neither_torch_nor_a_part() -> None:
    code = (
        "import sys; from leverplus_core import Catalog; c = Catalog.load(disabled='');"
        "assert c.names('model'); heavy = {'torch', 'transformers', 'scipy', 'leverplus_models.qwen2_5_vl'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


VERB = """
    from leverplus_core import hookimpl

    def greet(name: str = "you") -> None:
        \"\"\"Say hello.\"\"\"
        print(f"hello {name}")

    @hookimpl
    def leverplus_verbs():
        return {"NAME": __name__ + ":TARGET"}
"""


def test_a_third_party_verb_is_called_and_listed(site: Path) -> None:
    _install(site, "acme-verb", VERB.replace("NAME", "greet").replace("TARGET", "greet"))
    called = CliRunner().invoke(app, ["greet", "--name", "anna"])
    assert (called.exit_code, called.output) == (0, "hello anna\n")
    assert "Say hello." in CliRunner().invoke(app, ["--help"]).output


@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        ("greet", "nothing", "verb 'greet' of acme-verb 1.0 cannot be imported"),
        ("greet", "hookimpl", "verb 'greet' of acme-verb 1.0: acme_verb:hookimpl is not a function."),
        ("run", "greet", "verb 'run' of a plugin is leverplus's own: the plugin's is not used."),
    ],
)
def test_a_verb_that_cannot_be_is_a_warning(site: Path, name: str, target: str, told: str) -> None:
    _install(site, "acme-verb", VERB.replace("NAME", name).replace("TARGET", target))
    listed = CliRunner().invoke(app, ["--help"])
    assert listed.exit_code == 0 and told in listed.output
    assert "Run the whole job" in listed.output and "Say hello." not in listed.output
    if name == "greet":
        assert isinstance(CliRunner().invoke(app, ["greet"]).exception, PluginError)
