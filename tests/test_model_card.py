"""runner.model_card: what the README.md of an exported checkpoint says, and that nobody's text becomes markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from runner import checkpoints, model_card
from runner.gate import Decision
from runner.model_card import Subject, card
from runner.standings import open_run
from tests.recorded_run import write_run_folder


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The last checkpoint of a run of two stages, whose gate is red."""
    root = tmp_path_factory.mktemp("card")
    run = write_run_folder(root, 3, 40, said=("</pre><script>alert(1)</script>",), lost_at_end=9)
    (run / "data").mkdir(exist_ok=True)
    account = {"rows": 37, "left_out": {"chars": {"bad": 2}}}
    spec = open_run(run).loaded.spec
    rows = {"rows": dict.fromkeys(spec.stages["qa"].data, account)}
    (run / "data" / "manifest.json").write_text(json.dumps(rows), encoding="utf-8")
    opened = open_run(run)
    standings = opened.standings
    at = standings.all_checkpoints()[-1]
    manifest = checkpoints.read_manifest(at.path)
    decisions = standings.decisions(at)
    return Subject(run, root, spec, opened.record, manifest, True, False, decisions, 0)


def section(text: str, title: str) -> str:
    found = re.search(rf"^## {title}\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title}"
    return found[1]


def test_the_head_is_what_a_hub_reads(subject: Subject) -> None:
    data: Any = ModelCard(card(subject)).data  # its attributes are what the head says
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert data.tags == ["recipe-runner", "pretrain", "sft"]
    assert data.base_model is None
    results = {result.dataset_name: result.metric_value for result in data.eval_results or ()}
    rates = {f"probe suite {one.suite}": round(one.tally.rate or 0, 4) for one in subject.decisions}
    assert results == rates


def test_a_base_and_data_on_a_hub_are_named_in_the_head_and_paths_of_this_machine_are_not(subject: Subject) -> None:
    model = subject.recipe.model.model_copy(update={"path": "Qwen/Qwen3-0.6B", "config": None, "tokenizer": None})
    data = {name: block.model_copy(update={"path": "tatsu-lab/alpaca"} if block.path else {})
            for name, block in subject.recipe.data.items()}  # fmt: skip
    recipe = subject.recipe.model_copy(update={"model": model, "data": data})
    head = yaml.safe_load(card(replace(subject, recipe=recipe)).split("---\n")[1])
    assert (head["base_model"], head["datasets"]) == ("Qwen/Qwen3-0.6B", ["tatsu-lab/alpaca"])
    local = recipe.model_copy(update={"model": model.model_copy(update={"path": "/home/me/weights"})})
    assert "base_model" not in yaml.safe_load(card(replace(subject, recipe=local)).split("---\n")[1])


def test_the_stages_are_told_with_their_data_and_rows_in_the_order_of_training(subject: Subject) -> None:
    told = section(card(subject), "Training").splitlines()
    assert [line.split(" | ")[1] for line in told[2:4]] == ["pretrain", "sft"]
    assert "(37 rows)" in told[3]
    assert any("2 bad" in line for line in told)


def test_red_gates_stand_at_the_top_under_probes_with_intervals_and_under_limits(subject: Subject) -> None:
    text = card(subject)
    assert "**Its gate is red in held&#95;out: see [Probes](#probes).**" in text
    told = section(text, "Probes")
    assert re.search(r"\| ✗ red \| <code>held&#95;out</code> \| [\d.]+ % \| 40 \| [\d.]+ % – [\d.]+ % \|", told)
    assert "min&#95;pass&#95;rate is 0.9" in told
    limits = section(text, "Limits")
    assert "<code>held&#95;out</code> is **red**" in limits
    assert "<code>watched</code> has 3 cases: a model whose true rate lies anywhere from 43.9 % to 100 %" in limits


def test_a_suite_without_a_case_and_a_checkpoint_that_is_asked_nothing_are_said_to_be_so(subject: Subject) -> None:
    one = subject.decisions[0]
    unasked: Decision = replace(one, tally=replace(one.tally, passed=0, missed=0, errors=0), green=None, reasons=())
    assert "| · no gate | <code>held&#95;out</code> | – | 0 |" in card(replace(subject, decisions=[unasked]))
    assert "nothing is known of what it can do" in card(replace(subject, decisions=[], changed=None))


def test_verdicts_that_differ_after_the_merge_are_counted(subject: Subject) -> None:
    assert "Every verdict is the one that the checkpoint itself was given in its run." in card(subject)
    assert "3 cases have another outcome than the checkpoint itself had" in card(replace(subject, changed=3))


def test_the_recipe_is_folded_whole_and_nothing_that_others_wrote_is_markup(subject: Subject) -> None:
    one = subject.decisions[0]
    loud = replace(one, reasons=("</pre> <script>x</script> @everyone | [link](http://x) `code`",))
    text = card(replace(subject, decisions=[loud]))
    folded = section(text, "Recipe")
    source = (subject.run / "recipe.yaml").read_text(encoding="utf-8").rstrip("\n")
    assert folded.split("```yaml\n")[1].split("\n```\n")[0] == source
    assert re.findall(r"<script|@everyone|\]\(http", text) == []


def test_a_recipe_cannot_close_the_fence_it_stands_in_and_hides_nothing(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("a: '```` </details> \u202e'\n", encoding="utf-8")
    folded = section(card(replace(subject, run=tmp_path)), "Recipe")
    assert "\n`````yaml\na: '```` </details> \\u202e'\n`````\n" in folded


def test_a_card_has_of_an_absolute_path_the_last_name_alone(subject: Subject, tmp_path: Path) -> None:
    weights, files = "/home/me/weights", "~/secret/rows-*.jsonl"
    text = f"model: {{path: {weights}}}\ndata:\n  chars: {{path: {files}, other: /home/me/weights/tokenizer}}\n"
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    model = subject.recipe.model.model_copy(update={"path": weights, "config": None, "tokenizer": None})
    data = {name: block.model_copy(update={"path": files} if block.path else {})
            for name, block in subject.recipe.data.items()}  # fmt: skip
    recipe = subject.recipe.model_copy(update={"model": model, "data": data})
    told = card(replace(subject, run=tmp_path, recipe=recipe))
    assert "It starts from the weights of <code>…/weights</code>." in told
    assert "chars: {path: …/rows-*.jsonl, other: …/tokenizer}" in told
    assert re.findall(r"/home|~/|secret", told) == []


@pytest.mark.parametrize(
    "text", ["Qwen/Qwen3-1.7B", "recipes/data/zhdict.tsv", "/no_think", "/{{ a }}/{{ b }}", "汉字/部首", "/"]
)
def test_what_is_no_absolute_path_is_left_as_it_is(text: str) -> None:
    assert model_card.without_folders(text) == text


def test_the_lines_to_load_it_are_python_with_a_chat_template_and_without(subject: Subject) -> None:
    for converses in (True, False):
        lines = section(card(replace(subject, converses=converses)), "Loading")
        source = lines.split("```python\n")[1].split("```")[0]
        compile(source, "card", "exec")
        assert ("apply_chat_template" in source) is converses


def test_the_file_is_called_what_hubs_show() -> None:
    assert Path(model_card.FILE).name == "README.md"
