"""The catalog: what is found, what is refused, and how a mistake is reported."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import leverplus_core
from leverplus_core import Catalog, PluginError, RecipeError
from leverplus_core.plugins.commands import command_entries
from leverplus_core.plugins.manager import KINDS, Entry

Install = Callable[..., str]

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
    assert {e.kind for e in catalog.entries()} == set(KINDS) - {"stage"}, "our own stages are in one list"
    assert catalog.warnings == []
    assert catalog.names("sampler") == ["image_knn", "mixed", "rand", "random", "text_knn"]


def test_a_third_party_part_is_listed_and_built(install: Install) -> None:
    install("acme-flat", REWARD.replace("NAME", "flat"))
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
def test_a_broken_plugin_is_one_warning_and_its_parts_are_absent(install: Install, code: str, says: str) -> None:
    install("acme-bad", code)
    catalog = Catalog.load(disabled="")
    (entry,) = _of(catalog.entries(), "acme-bad")
    assert entry.kind == "" and entry.status.startswith("broken: ") and says in entry.status
    (warning,) = catalog.warnings
    assert "acme-bad 1.0" in warning and says in warning and "\n" not in warning
    assert catalog.build("sampler", "random", {"k": 3})
    with pytest.raises(PluginError, match="Not read: acme-bad is broken"):
        catalog.build("reward", "NAME", {})


def test_a_half_registered_plugin_leaves_nothing_behind(install: Install) -> None:
    code = (
        REWARD.replace("NAME", "flat") + "\n    @hookimpl\n    def leverplus_models():\n        raise KeyError('x')\n"
    )
    install("acme-half", code)
    catalog = Catalog.load(disabled="")
    assert [entry.kind for entry in _of(catalog.entries(), "acme-half")] == [""]
    assert "flat" not in catalog.names("reward")


def test_a_clash_names_both_and_replaces_nothing(install: Install) -> None:
    install("acme-clash", REWARD.replace("NAME", "separated"))
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
def test_disable_settles_a_clash(install: Install, monkeypatch: pytest.MonkeyPatch, off: str, winner: str) -> None:
    install("acme-clash", REWARD.replace("NAME", "separated"))
    monkeypatch.setenv("LEVERPLUS_DISABLE", off)
    catalog = Catalog.load()
    assert catalog.entry("reward", "separated").distribution == winner
    assert catalog.warnings == []
    assert [e.status for e in _of(catalog.entries(), "acme-clash")] == ["disabled by LEVERPLUS_DISABLE"]


def test_disabling_the_built_ins_lets_a_third_party_take_their_place(install: Install) -> None:
    install("acme-clash", REWARD.replace("NAME", "separated"))
    catalog = Catalog.load(disabled="leverplus")
    assert catalog.build("reward", "separated", {}).model_dump() == {"value": 1.0}


def test_a_disabled_plugin_is_not_imported(install: Install) -> None:
    module = install("acme-off", "raise RuntimeError('imported')")
    assert Catalog.load(disabled="acme-off").warnings == []
    assert module not in sys.modules


def test_two_third_parties_may_share_an_entry_point_name(install: Install) -> None:
    """`load_setuptools_entrypoints` would skip the second without a word."""
    for name in ("one", "two"):
        install(f"acme-{name}", REWARD.replace("NAME", name))
    assert {"one", "two"} <= set(Catalog.load(disabled="").names("reward"))


def test_unknown_name_says_where_what_exists_and_what_was_meant() -> None:
    with pytest.raises(PluginError) as error:
        Catalog.load(disabled="").build("sampler", "mixd", {}, where="okvqa.yaml:7")
    expected = (
        "no sampler named 'mixd' in okvqa.yaml:7. Did you mean 'mixed'? "
        "Known: image_knn, mixed, rand, random, text_knn."
    )
    assert str(error.value) == expected


def test_messages_name_the_kind_as_a_recipe_does() -> None:
    with pytest.raises(PluginError, match="no model named 'qwen'"):
        Catalog.load(disabled="").build("model", "qwen", {})


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("random", {"kk": 3}, "sampler 'random' in a.yaml:2: unknown setting 'kk'. Did you mean 'k'? Known: k."),
        ("random", {"k": "many"}, "sampler 'random' in a.yaml:2: k='many': Input should be a valid integer"),
        ("random", {"k": 0}, "k=0: Input should be greater than or equal to 1. Settings: k."),
        (
            "mixed",
            {"text": 0.8, "image": 0.7},
            "must not add up to more than 1. Settings: k, text, image, text_image, state.",
        ),
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
        ("def compute", "def computed", "acme_bad:Flat lacks the method compute of Reward"),
    ],
)
def test_a_part_that_is_not_what_it_says(install: Install, old: str, new: str, says: str) -> None:
    install("acme-bad", REWARD.replace(old, new))
    catalog = Catalog.load(disabled="")
    assert catalog.warnings == [], "parts are not imported to be listed"
    with pytest.raises(PluginError, match=r"reward 'NAME' of acme-bad 1\.0") as error:
        catalog.build("reward", "NAME", {})
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "listed", "checked"),
    [
        ('":Flat"', '":Missing"', "has no attribute 'Missing'", "has no attribute 'Missing'"),
        (
            '__name__ + ":Flat"',
            '"acme_nowhere:Flat"',
            "No module named 'acme_nowhere'",
            "No module named 'acme_nowhere'",
        ),
        (
            '__name__ + ":Flat"',
            '"acme_bad.sub:Flat"',
            "No module named 'acme_bad.sub'",
            "No module named 'acme_bad.sub'",
        ),
        ("class Flat(Reward):", "class Flat:", "is not a leverplus_core.Reward", "is not a leverplus_core.Reward"),
        ('":Flat"', '":leverplus_rewards"', "is not a leverplus_core.Reward", "is not a leverplus_core.Reward"),
        ("class Flat(Reward):", "class Flat(str):", "ok", "is not a leverplus_core.Reward"),
        ("def compute", "def computed", "ok", "lacks the method compute of Reward"),
        ('":Flat"', '":Reward"', "ok", "lacks the method compute"),
    ],
)
def test_a_part_that_cannot_be_used_is_listed_as_broken(
    install: Install, old: str, new: str, listed: str, checked: str
) -> None:
    install("acme-bad", REWARD.replace("NAME", "bad").replace(old, new))
    catalog = Catalog.load(disabled="")
    for by_import, says in ((False, listed), (True, checked)):
        (entry,) = _of([e for e in catalog.checked_entries(by_import=by_import) if e.name == "bad"], "acme-bad")
        assert says in entry.status and entry.status.startswith("ok" if says == "ok" else "broken: ")
        assert "\n" not in entry.status


def test_listing_reads_a_part_s_source_and_does_not_run_it(install: Install, site: Path) -> None:
    part = "raise RuntimeError('imported')\nfrom leverplus_core import Reward\nclass Flat(Reward): ...\n"
    (site / "acme_lazy_part.py").write_text(part, encoding="utf-8")
    install("acme-lazy", REWARD.replace("NAME", "lazy").replace('__name__ + ":Flat"', '"acme_lazy_part:Flat"'))
    catalog = Catalog.load(disabled="")
    assert {e.status for e in catalog.checked_entries()} == {"ok"}
    broken = {e.name: e.status for e in _of(catalog.checked_entries(by_import=True), "acme-lazy")}
    assert broken["lazy"].endswith("cannot be imported from acme_lazy_part:Flat: RuntimeError: imported")
    (site / "acme_lazy_part.py").write_text("class Flat(", encoding="utf-8")
    assert "SyntaxError" in next(e.status for e in catalog.checked_entries() if e.name == "lazy")


def test_a_plugin_file_of_the_folder_that_is_imported_from_is_itself(site: Path) -> None:
    """As in a notebook, whose folder is on the import path."""
    file = site / "my_parts_here.py"
    file.write_text(textwrap.dedent(REWARD.replace("NAME", "flat")), encoding="utf-8")
    assert Catalog.load([file], disabled="").build("reward", "flat", {})


def test_every_built_in_part_can_be_imported() -> None:
    catalog = Catalog.load(disabled="")
    entries = [e for e in catalog.checked_entries(by_import=True) if e.distribution == "leverplus"]
    assert {e.status for e in entries} == {"ok"}


def test_a_damaged_distribution_is_one_warning_that_names_its_folder(install: Install, site: Path) -> None:
    install("acme-flat", REWARD.replace("NAME", "flat"))
    unnamed = site / "acme_unnamed-1.0.dist-info"
    unnamed.mkdir()
    (unnamed / "entry_points.txt").write_text("[leverplus]\nparts = acme_flat\n", encoding="utf-8")
    unversioned = site / "acme_unversioned-1.0.dist-info"
    unversioned.mkdir()
    (unversioned / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-unversioned\n", encoding="utf-8")
    (unversioned / "entry_points.txt").write_text("[leverplus]\nparts = acme_flat\n", encoding="utf-8")
    left = site / "~cme_flat-0.9.dist-info"
    left.mkdir()
    (left / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-flat\nVersion: 0.9\n", encoding="utf-8")
    (left / "entry_points.txt").write_text("[leverplus]\nparts = acme_flat\n", encoding="utf-8")
    garbled = site / "unrelated-1.0.dist-info"
    garbled.mkdir()
    (garbled / "METADATA").write_text("Metadata-Version: 2.1\nName: unrelated\nVersion: 1\n", encoding="utf-8")
    (garbled / "entry_points.txt").write_text("[leverplus]\nno equals sign\n", encoding="utf-8")
    catalog = Catalog.load(disabled="")
    assert "flat" in catalog.names("reward")
    remedy = "Remove it, or install it again."
    says = {
        unnamed: "its metadata has no name",
        unversioned: "its metadata has no version",
        left: "it is left over from an interrupted pip",
        garbled: "its entry_points.txt cannot be read (TypeError: Pair.__new__() missing 1 required positional "
        "argument: 'value')",
    }
    assert sorted(catalog.warnings) == sorted(f"{path} is passed over: {why}. {remedy}" for path, why in says.items())
    assert command_entries(())[1] == catalog.warnings, "the help page tells the same"


@pytest.mark.parametrize("entry_points", [b"[console_scripts]\nno equals sign\n", b"[console_scripts]\na = \xff\n"])
def test_a_malformed_file_of_an_unrelated_package_is_one_warning_of_any_command(
    tmp_path: Path, entry_points: bytes
) -> None:
    """pydantic and torch read every distribution's entry points when they are imported."""
    info = tmp_path / "unrelated-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unrelated\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_bytes(entry_points)
    code = "import sys; from leverplus_core.cli import main; sys.argv[0] = 'leverplus'; main()"
    small = ["--set", "dataset.train=40", "--set", "dataset.validation=8"]
    for arguments in (["--help"], ["plugins", "--check"], ["validate", *small]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "LEVERPLUS_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        [warning] = [line for line in done.stderr.splitlines() if "warning" in line]
        assert "Traceback" not in done.stderr and warning.startswith(
            f"leverplus: warning: {info} is passed over: its entry_points.txt cannot be read"
        )


def test_a_plugin_that_prints_leaves_standard_output_alone(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("acme-loud", "print('hello')\n" + textwrap.dedent(REWARD).replace("NAME", "loud"))
    assert Catalog.load(disabled="").build("reward", "loud", {})
    assert capsys.readouterr() == ("", "hello\n")


def test_a_plugin_file_is_tried_unpackaged(tmp_path: Path) -> None:
    file = tmp_path / "my_parts_tried.py"
    file.write_text(textwrap.dedent(REWARD.replace("NAME", "flat")), encoding="utf-8")
    catalog = Catalog.load([file], disabled="")
    assert catalog.entry("reward", "flat").distribution == str(file)
    assert catalog.build("reward", "flat", {"value": 2}).model_dump() == {"value": 2.0}
    assert Catalog.load([file], disabled="").build("reward", "flat", {}), "a second load finds it again"
    del sys.modules["my_parts_tried"]


def test_a_plugin_file_that_was_renamed_says_what_its_class_is_called_now(tmp_path: Path) -> None:
    file = tmp_path / "acme_renamed.py"
    file.write_text(textwrap.dedent(REWARD.replace('__name__ + ":Flat"', '"acme_before:Flat"')), encoding="utf-8")
    with pytest.raises(PluginError) as error:
        Catalog.load([file], disabled="").build("reward", "NAME", {})
    assert str(error.value).endswith("No module named 'acme_before'. A class of this file is 'acme_renamed:Flat'.")


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
    for name in leverplus_core.__all__:
        assert getattr(leverplus_core, name) is not None
    needed = {"hookimpl", "Candidate", "Question", "LeverplusError", "Recipe", "run", "Registry"}
    contracts = {name for kind, name in KINDS.items() if kind not in ("importer", "exporter")}
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


def test_a_plugin_may_state_the_api_that_it_is_written_for(install: Install) -> None:
    install("acme-flat", f'leverplus_api = "{leverplus_core.API}"\n' + textwrap.dedent(REWARD.replace("NAME", "flat")))
    catalog = Catalog.load(disabled="")
    assert catalog.warnings == [] and "flat" in catalog.names("reward")


@pytest.mark.parametrize("rest", [REWARD, "import a_module_of_the_future"], ids=["as today", "not importable"])
def test_a_plugin_of_another_api_is_a_status_and_a_warning(install: Install, rest: str) -> None:
    install("acme-flat", 'leverplus_api = "99"\n' + textwrap.dedent(rest.replace("NAME", "flat")))
    catalog = Catalog.load(disabled="")
    (entry,) = _of(catalog.checked_entries(), "acme-flat")
    said = f"incompatible: it is written for plugin API 99, and this leverplus has {leverplus_core.API}"
    assert entry.status == said
    assert catalog.warnings == [f"plugin 'parts' of acme-flat 1.0 is {said}"]
    with pytest.raises(PluginError, match="Not read: acme-flat is incompatible"):
        catalog.build("reward", "flat", {})
    assert "acme_flat" not in sys.modules


def test_a_plugin_file_of_another_api_is_refused(site: Path) -> None:
    file = site / "parts_of_tomorrow.py"
    file.write_text('leverplus_api = "99"\n' + textwrap.dedent(REWARD), encoding="utf-8")
    with pytest.raises(PluginError, match="written for plugin API 99"):
        Catalog.load([file], disabled="")


def test_a_public_name_that_was_renamed_still_works_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(leverplus_core.DEPRECATED, "Prize", ("Reward", "0.3"))
    with pytest.warns(DeprecationWarning, match="leverplus_core.Prize is now leverplus_core.Reward") as told:
        assert leverplus_core.Prize is leverplus_core.Reward  # type: ignore[attr-defined]
    assert told[0].filename == __file__, "the warning names the line that uses the former name"


def test_no_public_name_of_this_api_has_gone_without_deprecation() -> None:
    """tests/golden/public_names.txt holds the names that plugin API 1 promises; what is added need not be there."""
    golden = Path(__file__).parents[2] / "golden" / "public_names.txt"
    promised = set(golden.read_text(encoding="utf-8").split())
    assert promised - set(leverplus_core.__all__) - set(leverplus_core.DEPRECATED) == set()
