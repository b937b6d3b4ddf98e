"""The card of an exported checkpoint: what it is, what it learned, what its probes say, and what they cannot.

The head is YAML as the hubs read it, the rest Markdown. Every text that others wrote, names of data, reasons of gates,
replies, passes through `runner.markdown`, or stands in a fence that it cannot close. Where things lie on the machine
that wrote it stays there: of an absolute path the card has the last name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner import spec
from runner.checkpoints import Manifest
from runner.data import hub
from runner.errors import printable
from runner.folder import RunRecord
from runner.gate import Decision, wilson
from runner.markdown import code, words
from runner.tables import number_words, percent

FILE = "README.md"
_FEW = 100
"""Cases: of a suite with fewer, the card says how much it cannot tell."""


@dataclass(frozen=True)
class Subject:
    """What the card is about."""

    run: Path
    """The run's folder."""
    root: Path
    """Where the recipe's relative paths start."""
    recipe: spec.Recipe
    record: RunRecord
    manifest: Manifest
    """Of the checkpoint that was exported."""
    merged: bool
    """Whether it was an adapter."""
    converses: bool
    """Whether its tokenizer has a chat template."""
    decisions: Sequence[Decision]
    """About what was exported."""
    changed: int | None
    """Cases that it answers otherwise than the checkpoint; None where that was not asked."""

    @property
    def name(self) -> str:
        """`zhdict_dpo-prefer-63`."""
        variant = f"-{self.record.variant}" if self.record.variant else ""
        return f"{self.recipe.recipe}{variant}-{self.manifest.stage}-{self.manifest.step}"

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that its weights came through, the first one first."""
        return tuple(reversed(self.recipe.lineage(self.manifest.stage)))


def card(subject: Subject) -> str:
    """The whole file."""
    parts = (_title, _base, _trained, _probed, _limits, _loading, _versions, _recipe)
    body = "\n\n".join("\n".join(part(subject)) for part in parts)
    head = yaml.safe_dump(_head(subject), allow_unicode=True, sort_keys=False)
    return f"---\n{head}---\n\n{body}\n"


# --- the head ---


def _head(subject: Subject) -> dict[str, Any]:
    """As https://huggingface.co/docs/hub/model-cards says; what is not known is left out."""
    made: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if (base := subject.recipe.model.path) is not None and hub.is_hub_id(base, subject.root):
        made["base_model"] = base
    paths = [block.path for block in subject.recipe.data.values() if block.path is not None]
    if known := list(dict.fromkeys(path for path in paths if hub.is_hub_id(path, subject.root))):
        made["datasets"] = known
    kinds = dict.fromkeys(subject.recipe.stages[name].kind for name in subject.stages)
    made["tags"] = ["recipe-runner", *kinds]
    if results := [found for decision in subject.decisions if (found := _result(decision)) is not None]:
        made["model-index"] = [{"name": subject.name, "results": results}]
    return made


def _result(decision: Decision) -> dict[str, Any] | None:
    rate = decision.tally.rate
    if rate is None:
        return None
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": f"probe suite {decision.suite}", "type": "probes"},
        "metrics": [
            {"type": "pass_rate", "value": round(rate, 4), "name": f"pass rate of {decision.tally.asked} cases"}
        ],
    }


# --- the sections ---


def _title(subject: Subject) -> Iterator[str]:
    about = subject.manifest
    yield f"# {words(subject.name)}"
    yield ""
    merged = " The adapter is merged into its base." if subject.merged else ""
    yield (
        f"Checkpoint {code(about.label)} of the recipe {code(subject.recipe.recipe)}: step {about.step:,}"
        f" of the stage {code(about.stage)}, after {about.tokens:,} tokens of it.{merged}"
    )
    red = [decision.suite for decision in subject.decisions if decision.green is False]
    if red:
        yield ""
        yield f"**Its gate is red in {', '.join(words(name) for name in red)}: see [Probes](#probes).**"


def _base(subject: Subject) -> Iterator[str]:
    model = subject.recipe.model
    yield "## Base"
    yield ""
    if model.path is not None:
        yield f"It starts from the weights of {code(without_folders(model.path))}."
        return
    config = model.config or {}
    sizes = ", ".join(
        f"{name} {config[name]}"
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
        if name in config
    )
    told = f" ({words(sizes)})" if sizes else ""
    yield f"It starts from nothing: a new {code(str(config.get('model_type')))}{told}, its weights drawn from seed " \
          f"{subject.recipe.seed}."  # fmt: skip


def _trained(subject: Subject) -> Iterator[str]:
    counted = _rows(subject.run)
    yield "## Training"
    yield ""
    yield "| stage | kind | from | data | learning rate | batch |"
    yield "|---|---|---|---|---:|---:|"
    for name in subject.stages:
        stage = subject.recipe.stages[name]
        kind = f"{stage.kind} with LoRA" if stage.lora is not None and stage.kind != "lora" else stage.kind
        data = ", ".join(f"{code(ref)}{_count(counted.get(ref))}" for ref in stage.data)
        start = code(stage.from_) if stage.from_ else "the base"
        yield f"| {code(name)} | {kind} | {start} | {data} | {stage.learning_rate:g} | {stage.global_batch_size} |"
    yield ""
    yield "| source | files | rows left out |"
    yield "|---|---|---|"
    for name, block in subject.recipe.data.items():
        if block.path is not None:
            yield f"| {code(name)} | {code(without_folders(block.path))} | {_left_out(name, counted)} |"
    yield ""
    yield "The data's licences and what may be in it besides are for whoever publishes this to say."


def _rows(run: Path) -> Mapping[str, Mapping[str, Any]]:
    """What became of the rows of each data set; nothing where the run does not say."""
    path = run / "data" / "manifest.json"
    if not path.is_file():
        return {}
    found: Mapping[str, Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8")).get("rows", {})
    return found


def _count(account: Mapping[str, Any] | None) -> str:
    return f" ({account['rows']:,} rows)" if account else ""


def _left_out(name: str, counted: Mapping[str, Mapping[str, Any]]) -> str:
    told: Mapping[str, int] = next(
        (account["left_out"][name] for account in counted.values() if name in account.get("left_out", {})), {}
    )
    return words(", ".join(f"{rows:,} {why}" for why, rows in told.items())) or "none"


def _probed(subject: Subject) -> Iterator[str]:
    yield "## Probes"
    yield ""
    if not subject.decisions:
        yield "Its run asks nothing at this stage: nothing is known of what it can do."
        return
    yield "Asked of these weights after the export, with 95 % Wilson intervals."
    yield ""
    yield "| | suite | passed | of | interval | recorded |"
    yield "|---|---|---:|---:|---|---|"
    for decision in subject.decisions:
        tally = decision.tally
        sign = {True: "✓ green", False: "✗ red", None: "· no gate"}[decision.green]
        low, high = wilson(tally.passed, tally.asked)
        rate = "–" if tally.rate is None else percent(tally.rate)
        span = "" if tally.rate is None else f"{percent(low)} – {percent(high)}"
        numbers = words(", ".join(map(number_words, decision.numbers)))
        yield f"| {sign} | {code(decision.suite)} | {rate} | {tally.asked} | {span} | {numbers} |"
    for decision in subject.decisions:
        yield from (f"\n- {code(decision.suite)}: {words(reason)}" for reason in decision.reasons)
    if subject.changed is not None:
        yield ""
        yield (
            "Every verdict is the one that the checkpoint itself was given in its run."
            if subject.changed == 0
            else f"{subject.changed:,} cases have another outcome than the checkpoint itself had in its run."
        )


def _limits(subject: Subject) -> Iterator[str]:
    """What a reader of the numbers above should not take them for."""
    yield "## Limits"
    yield ""
    for decision in subject.decisions:
        if decision.green is False:
            yield f"- {code(decision.suite)} is **red**: this checkpoint does not do what its recipe asks of it."
    open_ended = [decision.suite for decision in subject.decisions if decision.green is None]
    if open_ended:
        yield f"- Nothing is demanded in {', '.join(map(code, open_ended))}: the numbers are recorded, not judged."
    few = [one for one in subject.decisions if one.tally.rate is not None and one.tally.asked < _FEW]
    for decision in few:
        low, high = wilson(decision.tally.passed, decision.tally.asked)
        yield (
            f"- {code(decision.suite)} has {decision.tally.asked} cases: a model whose true rate lies anywhere from "
            f"{percent(low)} to {percent(high)} could look like this one."
        )
    trained = set(subject.recipe.trained_on(subject.manifest.stage))
    asked = {decision.suite for decision in subject.decisions}
    seen = [name for name, suite in subject.recipe.probes.items() if name in asked and _was_trained(suite, trained)]
    if seen:
        yield f"- The questions of {', '.join(map(code, seen))} were trained: right answers there may be recited."
    if (best := subject.recipe.best) is not None and any("@best" in text for text in _chosen_by(subject)):
        yield f"- A checkpoint was chosen by its rate in {code(best)}: on new cases it would be lower than that rate."
    yield "- An interval speaks of more cases like those that were asked, not of other topics, wordings or languages."
    yield "- Replies are compared as the probes say. What nobody wrote a probe for was not looked at: harmful replies,"
    yield "  bias, private data and made-up facts among it."
    if subject.recipe.model.path is None:
        yield "- It was made from nothing with the data above, and knows nothing else."


def _was_trained(suite: spec.Suite, trained: set[str]) -> bool:
    whole = {ref.partition(".")[0] for ref in trained if "." not in ref}
    return suite.leaks == "expected" or (
        suite.cases is not None and (suite.cases in trained or suite.cases.partition(".")[0] in whole)
    )


def _chosen_by(subject: Subject) -> Iterator[str]:
    yield from (start for name in subject.stages if (start := subject.recipe.stages[name].from_))
    if subject.recipe.result is not None:
        yield subject.recipe.result.checkpoint


def _loading(subject: Subject) -> Iterator[str]:
    yield "## Loading"
    yield ""
    yield "```python"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield 'folder = "."  # this one, or its id on a hub'
    yield "model = AutoModelForCausalLM.from_pretrained(folder)"
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    if subject.converses:
        yield 'said = [{"role": "user", "content": "…"}]'
        yield "given = tokenizer.apply_chat_template("
        yield '    said, add_generation_prompt=True, return_tensors="pt", return_dict=True'
        yield ")"
    else:
        yield 'given = tokenizer("…", return_tensors="pt")  # it has no chat template: it goes on with a text'
    yield "reply = model.generate(**given, max_new_tokens=64, do_sample=False)"
    yield 'print(tokenizer.decode(reply[0, given["input_ids"].shape[1] :], skip_special_tokens=True))'
    yield "```"


def _versions(subject: Subject) -> Iterator[str]:
    record = subject.record
    yield "## Versions"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {words(name)} | {words(version)} |" for name, version in record.versions.items())
    yield f"| seed | {record.seed} |"
    if record.git_commit:
        yield f"| commit of the recipe's project | {code(record.git_commit)} |"
    yield f"| weights of the checkpoint | {code(subject.manifest.weights_sha256)} |"


def _recipe(subject: Subject) -> Iterator[str]:
    """Folded, as it was written."""
    yield "## Recipe"
    yield ""
    yield "<details><summary>The recipe, resolved</summary>"
    yield ""
    text = (subject.run / "recipe.yaml").read_text(encoding="utf-8").rstrip("\n")
    paths = {value for value in _texts(yaml.safe_load(text)) if without_folders(value) != value}
    for value in sorted(paths, key=len, reverse=True):  # one may begin with another
        text = text.replace(value, without_folders(value))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    yield f"{fence}yaml"
    yield _printable(text)
    yield fence
    yield ""
    yield "</details>"


def _texts(value: Any) -> Iterator[str]:
    """Every text of a YAML value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)


def without_folders(text: str) -> str:
    """`/home/me/data/*.jsonl` as `…/*.jsonl`; a hub id, a path from the project's root, any other text as they are."""
    absolute = re.fullmatch(r"(?:~[\w.-]*|[A-Za-z]:)?[/\\][^\n{]*[/\\]([^/\\\n{]+)[/\\]?", text)
    return f"…/{absolute[1]}" if absolute else text


def _printable(text: str) -> str:
    """Control characters and marks of direction spelled out, lines as they are."""
    return "\n".join(printable(line) for line in text.split("\n"))
