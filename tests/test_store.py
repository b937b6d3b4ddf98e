"""The reply store and the fingerprint it is keyed by: what is found, what never is, and what a bad disk cannot do."""

import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import runner.probing.warm  # noqa: F401 - pytester forgets, and imports anew, what a session imports first
from runner import verdicts
from runner.asking import Decoding
from runner.errors import UserError
from runner.probing import store as stores
from runner.probing.fingerprint import base_model, fingerprint
from runner.probing.questions import Answer, Message, Question
from runner.probing.store import Kept, Store
from tests.tiny import copy, make_checkpoint

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
MIB = 2**20
FULL = Question(
    prompt="心", messages=(Message("user", "a"),), raw=True, template_kwargs='{"a": 1}', choices=("是", "否"), seed=7,
    decoding=Decoding(5, ("\n",), 0.7, 0.9, 1.1, 3, 2),
)  # fmt: skip


def kept(text: str = "心", **more: object) -> Kept:
    return Kept(Answer(text=text, **more), "float32", "local")  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "replies.sqlite3", 64 * MIB)


def test_an_answer_comes_back_as_it_was_but_for_its_time(store: Store) -> None:
    answer = Answer(
        "<user>心\ud800", "木\n\x1b[31m", (1, 2, 3), "stop", 0.1 + 0.2, -1e-300, (-0.5, -1.25), seconds=3.0, again=True
    )
    store.put("f", [(FULL, Kept(answer, "bfloat16", "local"))])
    again = Store(store.path, MIB)
    assert again.get("f", [FULL, Question("other")]) == [
        Kept(dataclasses.replace(answer, seconds=0.0), "bfloat16", "local"), None,
    ]  # fmt: skip
    assert again.entries() == 1


def test_an_error_is_never_kept(store: Store) -> None:
    store.put("f", [(Question("a"), kept(error="out of memory")), (Question("b"), kept())])
    assert store.get("f", [Question("a"), Question("b")]) == [None, kept()]


def test_without_a_fingerprint_nothing_is_kept_or_found(store: Store) -> None:
    store.put("", [(Question("a"), kept())])
    assert (store.get("", [Question("a")]), store.entries()) == ([None], 0)


def changed(record: object, field: str) -> object:
    """The record with another value of this field."""
    value = getattr(record, field)
    other: object = value + (value[-1:] or ("x",)) if isinstance(value, tuple) else not value
    other = value + 1 if isinstance(value, (int, float)) and not isinstance(value, bool) else other
    other = value + " " if isinstance(value, str) else other
    return dataclasses.replace(record, **{field: other if not dataclasses.is_dataclass(value) else value})  # type: ignore[type-var]


def test_every_field_of_a_question_and_of_its_decoding_is_part_of_the_key(store: Store) -> None:
    store.put("f", [(FULL, kept())])
    others = [changed(FULL, field.name) for field in dataclasses.fields(Question) if field.name != "decoding"]
    others += [
        dataclasses.replace(FULL, decoding=changed(FULL.decoding, field.name)) for field in dataclasses.fields(Decoding)
    ]
    assert len(set(others) - {FULL}) == len(others) == 13
    assert store.get("f", others) == [None] * 13  # type: ignore[arg-type]
    assert store.get("other model", [FULL]) == [None]
    assert store.get("f", [FULL]) == [kept()]


def test_a_reply_whose_bytes_were_damaged_is_not_served(store: Store) -> None:
    store.put("f", [(FULL, kept("right"))])
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE replies SET reply = CAST(REPLACE(reply, 'right', 'wrong') AS BLOB)")
    connection.close()
    assert store.get("f", [FULL]) == [None]


def test_it_stays_below_its_bound_and_what_was_not_used_for_longest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    store = Store(tmp_path / "replies.sqlite3", MIB)
    first = [Question(f"first {number}") for number in range(100)]
    store.put("f", [(question, kept("x" * 2000)) for question in first])
    for round_ in range(10):
        now += 2 * 3600
        store.get("f", first[:50])
        store.put("f", [(Question(f"{round_} {number}"), kept("x" * 2000)) for number in range(100)])
        assert store.size_bytes() <= MIB
    known = store.get("f", first)
    assert (all(known[:50]), any(known[50:])) == (True, False)
    assert store.troubles == []
    store.put("f", [(Question("too large"), kept("x" * 3 * MIB))])
    assert store.size_bytes() <= MIB


CROWD = """
import sys
from pathlib import Path
from runner.probing.questions import Answer, Question
from runner.probing.store import Kept, Store

path, name = Path(sys.argv[1]), sys.argv[2]
store = Store(path, 2**26)
print("ready", flush=True)
sys.stdin.readline()
for round_ in range(10):
    mine = [Question(f"{name} {round_} {number}") for number in range(20)]
    shared = [Question(f"shared {number}") for number in range(20)]
    store.get("f", shared)
    store.put("f", [(one, Kept(Answer(text=one.prompt), "float32", "local")) for one in mine + shared])
    assert [found.answer.text for found in store.get("f", mine) if found] == [one.prompt for one in mine]
assert store.troubles == [], store.troubles
"""


def test_processes_that_read_and_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite3"
    crowd = [
        subprocess.Popen([sys.executable, "-c", CROWD, str(path), f"process {number}"], cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for number in range(4)
    ]  # fmt: skip
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in crowd] == [0] * 4
    store = Store(path, MIB)
    assert store.entries() == 4 * 10 * 20 + 20
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def overwritten(path: Path) -> None:
    path.write_text("this was a database\n" * 1000, encoding="utf-8")


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def holed(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


def newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize("damage", [overwritten, cut, holed, newer])
def test_a_damaged_or_newer_store_is_moved_aside_with_one_sentence(
    store: Store, damage: Callable[[Path], None]
) -> None:
    store.put("f", [(Question(str(number)), kept("x" * 500)) for number in range(200)])
    store.close()
    damage(store.path)
    again = Store(store.path, MIB)
    found = again.get("f", [Question(str(number)) for number in range(200)])
    assert not all(found)
    again.put("f", [(FULL, kept())])
    assert again.get("f", [FULL]) == [kept()]
    assert len(again.troubles) == 1
    assert "moved to replies.sqlite3.aside, a new one is begun" in again.troubles[0]
    assert Store(store.path, MIB).get("f", [FULL]) == [kept()]


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    other, text = tmp_path / "mine.sqlite3", tmp_path / "data.csv"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    text.write_text("a,b\n" * 100, encoding="utf-8")
    before = other.read_bytes(), text.read_bytes()
    for path, said in ((other, "is no reply store: left alone"), (text, "cannot be read")):
        store = Store(path, MIB)
        store.put("f", [(FULL, kept())])
        assert store.get("f", [FULL]) == [None]
        assert len(store.troubles) == 1
        assert said in store.troubles[0]
    assert (other.read_bytes(), text.read_bytes()) == before


def test_where_nothing_can_be_written_it_says_so_once_and_serves_what_it_has(store: Store) -> None:
    store.put("f", [(FULL, kept())])
    assert store._connection is not None
    store._connection.execute("PRAGMA query_only = 1")  # what SQLite then says is what a read-only disk says
    for _ in range(2):
        store.put("f", [(Question("new"), kept())])
    assert store.get("f", [FULL, Question("new")]) == [kept(), None]
    assert store.troubles == [
        f"{store.path} cannot be written (attempt to write a readonly database): new replies are not kept"
    ]


def test_a_full_disk_costs_one_sentence(store: Store) -> None:
    store.put("f", [(FULL, kept())])
    assert store._connection is not None
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")  # what SQLite then says is what a full disk says
    for number in range(3):
        store.put("f", [(Question(str(number)), kept("x" * MIB))])
    assert store.get("f", [FULL, Question("0")]) == [kept(), None]
    assert store.troubles == [f"{store.path} cannot be written (database or disk is full): new replies are not kept"]


def test_a_folder_that_cannot_be_made_costs_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "replies.sqlite3", MIB)
    store.put("f", [(FULL, kept())])
    assert store.get("f", [FULL]) == [None]
    assert len(store.troubles) == 1


def test_the_environment_says_where_it_is_and_how_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RECIPE_STORE", raising=False)
    assert stores.place() == tmp_path / "cache" / "recipe-runner" / "replies.sqlite3"
    monkeypatch.setenv("RECIPE_STORE", str(tmp_path / "own.sqlite3"))
    monkeypatch.setenv("RECIPE_STORE_MIB", "7")
    opened = Store.open()
    assert opened is not None
    assert (opened.path, opened.most_bytes) == (tmp_path / "own.sqlite3", 7 * MIB)
    monkeypatch.setenv("RECIPE_STORE", "off")
    assert (Store.open(), Store.open("off")) == (None, None)
    monkeypatch.setenv("RECIPE_STORE_MIB", "1GB")
    with pytest.raises(UserError) as raised:
        Store.open(str(tmp_path / "own.sqlite3"))
    assert raised.value.screen() == "$RECIPE_STORE_MIB is '1GB'\n    expected: a whole number of MiB, at least 1"


# --- the fingerprint ---


def of(path: Path, **settings: object) -> str:
    return fingerprint(path, settings)


def edited(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def test_a_checkpoint_at_another_place_with_another_trainer_state_is_the_same(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    other = copy(tiny_checkpoint, tmp_path / "elsewhere")
    for name in ("optimizer.pt", "rng_state_0.pth", "trainer_state.json", "README.md", "manifest.json", "run.log"):
        (other / name).write_text("x", encoding="utf-8")
    (other / "global_step7").mkdir()
    (other / "global_step7" / "zero.pt").write_text("x", encoding="utf-8")
    copy(tiny_checkpoint, other / "checkpoint-5")
    assert of(other) == of(tiny_checkpoint) != ""


def another_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")


def another_named_template(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}", encoding="utf-8")


def another_end(folder: Path) -> None:
    edited(folder, "generation_config.json", '"eos_token_id": 2', '"eos_token_id": 3')


def another_configuration(folder: Path) -> None:
    edited(folder, "config.json", '"hidden_act": "silu"', '"hidden_act": "gelu"')


def another_vocabulary(folder: Path) -> None:
    edited(folder, "tokenizer.json", '"<unk>"', '"<what>"')


def code_of_its_own(folder: Path) -> None:
    (folder / "modeling.py").write_text("x = 1\n", encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [another_template, another_named_template, another_end, another_configuration, another_vocabulary, code_of_its_own],
)
def test_what_a_reply_depends_on_is_part_of_it(
    tmp_path: Path, tiny_checkpoint: Path, change: Callable[[Path], None]
) -> None:
    other = copy(tiny_checkpoint, tmp_path / "other")
    change(other)
    assert of(other) not in ("", of(tiny_checkpoint))


def test_dtype_engine_chat_device_and_libraries_are_part_of_it(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {
        of(tiny_checkpoint), of(tiny_checkpoint, dtype="float16"), of(tiny_checkpoint, engine="continuous"),
        of(tiny_checkpoint, chat=False),
    }  # fmt: skip
    monkeypatch.setattr("runner.probing.fingerprint._versions", lambda: {"torch": "9"})
    seen.add(of(tiny_checkpoint))
    monkeypatch.setattr("runner.probing.fingerprint._device", lambda: ["Model: another"])
    seen.add(of(tiny_checkpoint))
    monkeypatch.setattr("runner.probing.fingerprint._engine_source", lambda: "changed")
    seen.add(of(tiny_checkpoint))
    assert len(seen) == 7


def test_one_byte_of_the_weights_counts_though_size_and_time_are_put_back(
    tmp_path: Path, tiny_checkpoint: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_RACY_NS", -1)  # remember digests at once
    mine = copy(tiny_checkpoint, tmp_path / "mine")
    weights = mine / "model.safetensors"
    before, about = fingerprint(mine, {}, sha256=store.sha256), weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)
    after = fingerprint(mine, {}, sha256=store.sha256)
    assert after not in ("", before)
    assert after == of(mine)


def test_a_file_is_hashed_once_and_again_when_it_changed(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counting(path: Path) -> str:
        hashed.append(path)
        return f"digest {len(hashed)}"

    monkeypatch.setattr(stores, "sha256_file", counting)
    file = tmp_path / "weights"
    file.write_text("one", encoding="utf-8")
    assert [store.sha256(file), store.sha256(file)] == ["digest 1", "digest 2"], "too fresh to be remembered"
    monkeypatch.setattr(stores, "_RACY_NS", -1)
    assert [store.sha256(file), store.sha256(file)] == ["digest 3", "digest 3"]
    assert Store(store.path, MIB).sha256(file) == "digest 3"
    file.write_text("two", encoding="utf-8")
    assert store.sha256(file) == "digest 4"
    file.rename(tmp_path / "old")
    file.write_text("two", encoding="utf-8")
    assert store.sha256(file) == "digest 5"


@pytest.fixture
def adapter(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """The files of an adapter, whose base lies beside it."""
    copy(tiny_checkpoint, tmp_path / "base")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../base"}), encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def test_an_adapter_counts_with_its_base(adapter: Path) -> None:
    seen = {of(adapter)}
    (adapter / "adapter_model.safetensors").write_bytes(b"others")
    seen.add(of(adapter))
    edited(adapter.parent / "base", "config.json", '"hidden_act": "silu"', '"hidden_act": "gelu"')
    seen.add(of(adapter))
    assert len(seen - {""}) == 3
    shutil.rmtree(adapter.parent / "base")
    assert of(adapter) == "", "a base that is not there cannot be told from another"


def test_a_base_of_the_hub_is_the_commit_in_the_local_cache(adapter: Path, tiny_checkpoint: Path) -> None:
    cache = adapter.parent / "cache"
    home = cache / "models--some--model"
    for commit in ("aaa", "bbb"):
        copy(tiny_checkpoint, home / "snapshots" / commit)
        (home / "snapshots" / commit / "note.txt").write_text(commit, encoding="utf-8")
    (home / "refs").mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}', encoding="utf-8")
    script = (
        "from pathlib import Path\nfrom runner.probing.fingerprint import base_model, fingerprint\n"
        f"path = Path({str(adapter)!r})\n"
        "digest = fingerprint(path, {})\n"
        "print(base_model(path) if digest else '', digest)"
    )
    said = []
    for commit in ("aaa", "bbb", "ccc"):
        (home / "refs" / "main").write_text(commit, encoding="utf-8")
        environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        said.append(done.stdout.split(" ") if done.stdout.strip() else ["", ""])
    assert [Path(folder).name for folder, _ in said] == ["aaa", "bbb", ""]
    assert said[0][1] != said[1][1]


def test_a_damaged_adapter_has_no_fingerprint(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("{", encoding="utf-8")
    assert of(adapter) == ""
    with pytest.raises(ValueError, match="Expecting"):
        base_model(adapter)


# --- a session ---

PROBE = """
from runner import probe

@probe(cases=[{"id": char, "char": char} for char in "心水木"], prompt="{{ char }}", max_new_tokens=6)
def test_char(case, reply):
    assert len(reply) < 100
"""
HEAVY = """
import sys
from pathlib import Path

def pytest_unconfigure():
    Path("heavy").write_text(repr(sorted({"torch", "transformers", "tokenizers", "peft", "numpy"} & set(sys.modules))))
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> pytest.Pytester:
    """A project with a probe, a checkpoint and a store of its own."""
    monkeypatch.setenv("RECIPE_STORE", str(pytester.path / "store.sqlite3"))
    shutil.copy(ROOT / "conftest.py", pytester.path / "conftest.py")
    copy(tiny_checkpoint, pytester.path / "model")
    pytester.makepyfile(test_p=PROBE)
    return pytester


def ask(project: pytest.Pytester, *more: str) -> pytest.RunResult:
    return project.runpytest_inprocess("test_p.py", "--ckpt", "model", "--probe-verdicts", "v.jsonl", *more)


def store_line(result: pytest.RunResult) -> str:
    return next((line for line in result.outlines if "reply store" in line), "")


def test_asking_again_after_an_assert_was_edited_loads_no_model(project: pytest.Pytester) -> None:
    first = ask(project)
    first.assert_outcomes(passed=3)
    assert store_line(first) == ""
    before = verdicts.read(project.path / "v.jsonl").verdicts
    project.makepyfile(test_p=PROBE.replace("< 100", "< 0"))
    (project.path / "conftest.py").write_text((ROOT / "conftest.py").read_text(encoding="utf-8") + HEAVY, "utf-8")
    again = project.runpytest_subprocess("test_p.py", "--ckpt", "model", "--probe-verdicts", "v.jsonl")
    again.assert_outcomes(failed=3)
    assert store_line(again) == "3 of 3 replies came from the reply store"
    assert (project.path / "heavy").read_text(encoding="utf-8") == "[]"
    after = verdicts.read(project.path / "v.jsonl").verdicts
    same = ("case_id", "reply", "prompt", "tokens", "margin", "logprob", "generation", "weights_sha256", "question")
    assert [[getattr(row, name) for name in same] for row in after] == [
        [getattr(row, name) for name in same] for row in before
    ]


def test_only_what_is_new_is_generated_and_off_is_off(project: pytest.Pytester) -> None:
    ask(project)
    project.makepyfile(test_p=PROBE.replace("心水木", "心水木abc"))
    assert store_line(ask(project)) == "3 of 6 replies came from the reply store"
    assert store_line(ask(project)) == "6 of 6 replies came from the reply store"
    assert store_line(ask(project, "--probe-store", "off")) == ""
    assert store_line(ask(project, "--probe-dtype", "bfloat16")) == ""
    project.makepyfile(test_p=PROBE.replace("max_new_tokens=6", "max_new_tokens=7"))
    assert store_line(ask(project)) == ""


def test_other_weights_under_the_same_name_are_asked_anew(project: pytest.Pytester) -> None:
    ask(project)
    before = [row.reply for row in verdicts.read(project.path / "v.jsonl").verdicts]
    shutil.rmtree(project.path / "model")
    make_checkpoint(project.path / "model", seed=5)
    assert store_line(ask(project)) == ""
    assert [row.reply for row in verdicts.read(project.path / "v.jsonl").verdicts] != before


def test_a_damaged_store_costs_a_session_one_line(project: pytest.Pytester) -> None:
    overwritten(project.path / "store.sqlite3")
    result = ask(project)
    result.assert_outcomes(passed=3)
    assert store_line(result).endswith("moved to store.sqlite3.aside, a new one is begun")
    assert store_line(ask(project)) == "3 of 3 replies came from the reply store"


# --- the command ---


def recipe(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from runner.cli import main; main()", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_shows_the_store_and_clears_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE_STORE", str(store.path))
    store.put("f", [(Question(str(number)), kept("x" * 500)) for number in range(2000)])
    assert recipe("store").splitlines() == [
        f"place    {store.path}", "replies  2,000", f"size     {store.size_bytes() / MIB:.1f} of at most 1,024 MiB",
    ]  # fmt: skip
    assert recipe("store", "--clear").splitlines() == [
        "2,000 replies forgotten", f"place    {store.path}", "replies  0", "size     0.0 of at most 1,024 MiB",
    ]  # fmt: skip
    assert store.get("f", [Question("1")]) == [None], "a session that has it open goes on"
    store.put("f", [(FULL, kept())])
    assert store.get("f", [FULL]) == [kept()]
    monkeypatch.setenv("RECIPE_STORE", "off")
    assert recipe("store") == "$RECIPE_STORE is off: no replies are kept\n"
