"""runner.starter: what `recipe new` writes passes every check as it is."""

from pathlib import Path

import pytest

from runner.check import load_checked
from runner.errors import UserError
from runner.preparation import Prepared
from runner.starter import write_starter


@pytest.mark.parametrize("name", ["mine", "my-model_2"])
def test_a_first_recipe_passes_every_check(tmp_path: Path, name: str) -> None:
    written = write_starter(name, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        f"{name}.yaml", f"data/{name}.tsv", f"probes/test_{name.replace('-', '_')}.py",
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
    _, data, probe = write_starter("mine", tmp_path)
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
