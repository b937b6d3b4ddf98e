"""runner.starter: what `recipe new` writes passes every check as it is, and what it says."""

import sys
from pathlib import Path

import pytest

from runner import cli
from runner.check import load_checked
from runner.errors import UserError
from runner.preparation import Prepared
from runner.starter import SUITES, chosen, recipe_lines, write_starter, write_suites

PROBES = Path(__file__).parents[1] / "probes"


@pytest.mark.parametrize("name", ["mine", "my-model_2"])
def test_a_first_recipe_passes_every_check(tmp_path: Path, name: str) -> None:
    written = write_starter(name, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        f"{name}.yaml", f"data/{name}.tsv", f"probes/test_{name.replace('-', '_')}.py",
        "recipe.schema.json",
    ]  # fmt: skip
    loaded = load_checked(written[0])
    assert loaded.spec.recipe == name
    assert Prepared(loaded, tmp_path / "run").arithmetic["answers"].publish_steps == (11, 22, 33)


def test_a_first_recipe_below_the_root_of_a_project_finds_its_files(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    folder = tmp_path / "a folder: #1" / "sub"
    folder.mkdir(parents=True)
    recipe, *_ = write_starter("mine", folder)
    loaded = load_checked(recipe)
    assert loaded.root == tmp_path
    assert loaded.spec.data["elements"].path == "a folder: #1/sub/data/mine.tsv"


def test_the_probe_of_a_first_recipe_is_right_about_its_data(tmp_path: Path) -> None:
    _, data, probe, _ = write_starter("mine", tmp_path)
    source = probe.read_text(encoding="utf-8")
    assert '@probe(cases="../data/mine.tsv", prompt="What is the symbol of {{ name }}?")' in source
    assert 'assert reply == f" The symbol of {case.name} is {case.symbol}."' in source
    assert (probe.parent / "../data/mine.tsv").resolve() == data.resolve()
    rows = data.read_text(encoding="utf-8").splitlines()
    assert (len(rows), rows[0], rows[26]) == (119, "name\tsymbol\tnumber\tperiod", "Iron\tFe\t26\t4")


@pytest.mark.parametrize("name", ["", "1st", "汉字", "a/b", "a b", "../up"])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        write_starter(name, tmp_path)
    assert caught.value.screen() == (
        f"{name!r} cannot name a recipe\n    expected: a letter, then letters, digits, _ and -"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["mine.yaml", "data/mine.tsv", "probes/test_mine.py"])
def test_nothing_is_written_where_one_of_the_files_is_there_already(tmp_path: Path, there: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        write_starter("mine", tmp_path)
    assert caught.value.screen() == (
        f"{tmp_path / there} is there already\n    hint: choose another name; nothing was written"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / there]
    assert (tmp_path / there).read_text(encoding="utf-8") == "mine"


# --- suites ---


def texts_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_copied_whole_and_byte_for_byte(tmp_path: Path, name: str) -> None:
    written = write_suites((name,), tmp_path)
    assert list(written) == [tmp_path / "probes" / part for part in (*SUITES[name].files, *SUITES[name].others)]
    assert texts_below(tmp_path / "probes") == {
        part: (PROBES / part).read_bytes() for part in (*SUITES[name].files, *SUITES[name].others)
    }


def test_all_suites_are_the_whole_folder_and_the_probes_come_first(tmp_path: Path) -> None:
    written = write_suites(chosen("all"), tmp_path)
    kinds = [path.parent.name for path in written]
    assert kinds[:7] == ["probes"] * 7
    assert len(written) == sum(len(suite.files) + len(suite.others) for suite in SUITES.values())


def test_suites_are_chosen_by_names_with_commas() -> None:
    assert chosen("repetition") == ("repetition",)
    assert chosen(" watched, repetition,watched,") == ("watched", "repetition")
    assert chosen("all") == tuple(SUITES)


@pytest.mark.parametrize(
    ("text", "screen"),
    [
        (
            "repetition,radical",
            "there is no suite 'radical'\n"
            "    expected: all, or some of radicals, novel_rules, repetition, forgetting, watched, with commas between "
            "them\n"
            "    hint: did you mean radicals?",
        ),
        (
            " ,",
            "--suites names no suite\n"
            "    expected: all, or some of radicals, novel_rules, repetition, forgetting, watched, with commas between "
            "them",
        ),
    ],
)
def test_a_suite_that_does_not_ship_is_named_with_the_nearest_that_does(text: str, screen: str) -> None:
    with pytest.raises(UserError) as caught:
        chosen(text)
    assert caught.value.screen() == screen


def test_no_suite_is_copied_where_one_of_its_files_is_there_already(tmp_path: Path) -> None:
    there = tmp_path / "probes" / "data" / "watched.jsonl"
    there.parent.mkdir(parents=True)
    there.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        write_suites(("repetition", "watched"), tmp_path)
    assert caught.value.screen() == (
        f"{there} is there already\n    hint: move it away, or choose other suites; nothing was written"
    )
    assert texts_below(tmp_path) == {"probes/data/watched.jsonl": b"mine"}


def test_a_file_where_a_folder_is_needed_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "probes").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        write_suites(("watched",), tmp_path)
    assert caught.value.screen() == (
        f"{tmp_path / 'probes'} is a file, and {tmp_path / 'probes' / 'test_watched.py'} needs a folder there\n"
        "    hint: move it away, or choose other suites; nothing was written"
    )


def test_a_recipe_that_has_the_name_of_a_suite_is_refused_beside_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        write_starter("watched", tmp_path, ("watched",))
    assert caught.value.screen() == (
        f"{tmp_path / 'probes' / 'test_watched.py'} would be written twice\n"
        "    hint: choose another name; nothing was written"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_with_the_lines_that_ask_every_suite_passes_every_check(tmp_path: Path) -> None:
    names = tuple(SUITES)
    recipe, *_ = write_starter("mine", tmp_path, names)
    lines = "".join(f"  {line}\n" for line in recipe_lines(names, tmp_path))
    text = recipe.read_text(encoding="utf-8").replace("\nprobes:\n", f"\nprobes:\n{lines}")
    recipe.write_text(text, encoding="utf-8")
    asked = load_checked(recipe).spec.probes
    assert list(asked)[:-2] == [entry for suite in SUITES.values() for entry, _ in suite.entries]


def test_the_lines_of_a_project_below_its_root_begin_there(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    assert recipe_lines(("watched",), tmp_path / "sub") == ['watched: {file: "sub/probes/test_watched.py"}']


def new(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["recipe", "new", *arguments])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return int(leaving.value.code or 0)


def test_suites_alone_end_with_the_command_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(tmp_path, monkeypatch, "--suites", "watched") == 0
    assert capsys.readouterr().out == (
        "wrote probes/test_watched.py\n"
        "wrote probes/data/watched.jsonl\n"
        "\n"
        "now:  pytest probes --ckpt CHECKPOINT\n"
        "CHECKPOINT is a folder of any trainer, with config.json, weights and tokenizer, or a PEFT adapter.\n"
    )
    # where there are other probes already, only the new ones are named
    assert new(tmp_path, monkeypatch, "--suites", "repetition") == 0
    assert (
        "\nnow:  pytest probes/test_repetition.py probes/test_repetition_penalised.py --ckpt CHECKPOINT\n"
        in capsys.readouterr().out
    )


def test_a_recipe_with_suites_ends_with_the_lines_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(tmp_path, monkeypatch, "mine", "--suites", "repetition") == 0
    assert capsys.readouterr().out == (
        "wrote mine.yaml\n"
        "wrote data/mine.tsv\n"
        "wrote probes/test_mine.py\n"
        "wrote probes/test_repetition.py\n"
        "wrote probes/test_repetition_penalised.py\n"
        "wrote probes/data/repetition.jsonl\n"
        "wrote recipe.schema.json\n"
        "\n"
        "now:  recipe run mine.yaml\n"
        "the suites are asked too where you add, under probes:\n"
        '  repetition: {file: "probes/test_repetition.py"}\n'
        '  repetition_penalised: {file: "probes/test_repetition_penalised.py"}\n'
    )


def test_new_with_nothing_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(tmp_path, monkeypatch) == 2
    assert capsys.readouterr().err.endswith("Error: give a NAME for a recipe, --from-data or --suites\n")
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_every_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(tmp_path, monkeypatch, "--help") == 0
    assert f"Suites: {', '.join(SUITES)}." in " ".join(capsys.readouterr().out.split())
