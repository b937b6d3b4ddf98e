"""Asking a server: a real one gives what the local engine gives, and no fault of a server is more than an error."""

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import openai  # noqa: F401 - pytester forgets, and imports anew, what a session imports first
import pytest

from runner import verdicts
from runner.asking import Decoding
from runner.errors import UserError
from runner.probing.endpoint import Endpoint
from runner.probing.questions import Answer, Message, Question
from tests import servers
from tests.servers import Asked, Reply, chat, models, scripted
from tests.tiny import make_checkpoint

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
KEY = "sk-a-key-that-nobody-may-see"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{% if shout is defined %}{{ shout }}{% endif %}？"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def served(answers: Callable[[Asked], Reply], offered: Reply | None = None) -> Callable[[Asked], Reply]:
    """A script that lists a model, and answers questions so."""
    offered = offered or models("m")
    return lambda asked: offered if asked.path.endswith("/models") else answers(asked)


def at(url: str, **more: object) -> Endpoint:
    endpoint = Endpoint(url, "m", **more)  # type: ignore[arg-type]
    endpoint.check()
    return endpoint


def one(url: str, question: Question = Question("心"), **more: object) -> Answer:  # noqa: B008 - frozen
    return at(url, **more).generate([question])[0]


# --- a real server ---


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama: what a Qwen says in a chat this server reads by the marks of Qwen's own template, which is not here."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = make_checkpoint(tmp_path_factory.mktemp("served") / "checkpoint-3", chat_template=TEMPLATE)
    about = json.loads((made / "config.json").read_text(encoding="utf-8"))
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "intermediate_size", "eos_token_id", "pad_token_id", "max_position_embeddings")  # fmt: skip
    torch.manual_seed(4)
    model = LlamaForCausalLM(LlamaConfig(**{name: about[name] for name in sizes}))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8 if weight.dim() > 1 else 1)
    model.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.transformers_serve(tmp_path_factory.mktemp("server")) as url:
        yield url


def test_a_real_server_gives_the_replies_of_the_local_engine(real: str, checkpoint: Path) -> None:
    from runner.probing.engine import Engine

    endpoint = Endpoint(real, str(checkpoint))
    endpoint.check()
    assert endpoint.describe() == f"server at {real}"
    local = Engine(checkpoint)
    long = Decoding(max_new_tokens=12)
    prompts = ["心", "abc", "水木", "the 汉字", "0123456789"]
    questions = [Question(prompt, decoding=long) for prompt in prompts]
    questions += [Question(prompt, raw=True, decoding=long) for prompt in prompts]
    questions.append(Question(messages=(Message("system", "水"), Message("user", "木")), decoding=long))
    questions.append(Question("心", template_kwargs='{"shout": "abc"}', decoding=long))
    first = local.generate(questions)
    stops = [Decoding(12, (answer.text[2:4],)) for answer in first if len(answer.text) >= 4]
    questions += [Question(question.prompt, question.messages, question.raw, question.template_kwargs, decoding=stop)
                  for question, stop in zip(questions, stops, strict=False)]  # fmt: skip
    expected, found = local.generate(questions), endpoint.generate(questions)
    assert [answer.error for answer in found] == [""] * len(questions)
    assert [answer.text for answer in found] == [answer.text for answer in expected]
    assert len({answer.text for answer in found}) > 8
    assert {answer.stop_reason for answer in found} >= {"length", "stop"}
    # without stop strings even this server's `stop` can only be the model's own end
    plain = [place for place, question in enumerate(questions) if not question.decoding.stop]
    assert [found[place].stop_reason for place in plain] == [expected[place].stop_reason for place in plain]


def test_a_real_server_refuses_what_it_does_not_know_and_answers_the_rest(real: str, checkpoint: Path) -> None:
    endpoint = Endpoint(real, str(checkpoint))
    endpoint.check()
    penalised = Question("心", decoding=Decoding(repetition_penalty=1.3))
    refused, fine = endpoint.generate([penalised, Question("心")])
    assert refused.error == ("the server answered 422: Unexpected fields in the request: {'repetition_penalty'}")
    assert (fine.error, bool(fine.text)) == ("", True)


def test_a_model_that_a_real_server_cannot_load_is_a_users_error(real: str) -> None:
    with pytest.raises(UserError) as raised:
        Endpoint(real, "/no/such/model").check()
    assert raised.value.screen() == (
        f"--probe-model /no/such/model: {real} does not answer for it (the server answered 500: Internal Server Error)"
    )


# --- what is sent ---


def test_the_whole_decoding_is_sent_and_what_servers_name_otherwise_in_their_own_words() -> None:
    decoding = Decoding(7, ("\n", "。"), 0.5, 0.8, 1.0)
    question = Question("心", template_kwargs='{"enable_thinking": false}', decoding=decoding, seed=2**40 + 3)
    common = {
        "model": "m", "messages": [{"role": "user", "content": "心"}], "max_tokens": 7, "temperature": 0.5,
        "top_p": 0.8, "stop": ["\n", "。"], "seed": 3, "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    own = {
        "vllm": {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0},
        "sglang": {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0},
        "llamacpp": {"repeat_penalty": 1.0, "repeat_last_n": -1, "top_k": 0, "min_p": 0.0},
        "openai": {},
    }
    for owner, extra in own.items():
        with scripted(served(lambda _: chat("木"), models("m", owned_by=owner))) as server:
            assert one(server.url, question).text == "木"
            assert server.asked[-1].path == "/v1/chat/completions"
            assert server.asked[-1].body == {**common, **extra}
            assert server.asked[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_dialogue_goes_as_messages_and_a_raw_prompt_as_a_completion() -> None:
    script = served(
        lambda asked: (
            Reply({"choices": [{"text": "raw", "finish_reason": "length"}]})
            if asked.path == "/v1/completions"
            else chat("said")
        )
    )
    turns = (Message("system", "s"), Message("user", "u"))
    with scripted(script) as server:
        dialogue, raw = at(server.url).generate([Question(messages=turns), Question("心", raw=True)])
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert (dialogue.text, json.loads(dialogue.prompt)) == ("said", messages)
    assert (raw.text, raw.prompt, raw.stop_reason) == ("raw", "心", "length")
    assert sorted(asked.body.get("prompt", "") for asked in server.asked[1:]) == ["", "心"]


def test_no_more_questions_than_allowed_are_with_the_server_at_a_time() -> None:
    with scripted(served(lambda asked: Reply(chat(asked.body["messages"][0]["content"]).body, after_s=0.05))) as server:
        questions = [Question(str(number)) for number in range(30)]
        answers = at(server.url, concurrency=5).generate(questions)
        assert [answer.text for answer in answers] == [question.prompt for question in questions]
        assert server.most_at_once == 5
        assert 0 < sum(answer.seconds for answer in answers) < 10


def test_a_closed_question_is_an_error_of_its_own() -> None:
    with scripted(served(lambda _: chat("木"))) as server:
        closed, fine = at(server.url).generate([Question("心", choices=("是", "否")), Question("心")])
    assert closed.error == (
        "a closed question (choices=) needs the log probability of given texts, which servers do not tell: "
        "ask a local checkpoint with --ckpt"
    )
    assert fine.text == "木"


# --- how a reply ends ---


@pytest.mark.parametrize(
    ("reply", "stops", "text", "reason"),
    [
        (chat("木"), (), "木", "eos"),
        (chat("木", "length"), ("\n",), "木", "length"),
        (chat("木\n水"), ("\n",), "木", "stop"),
        (chat("木", stop_reason=None), ("\n",), "木", "eos"),
        (chat("木", stop_reason="\n"), ("\n",), "木", "stop"),
        (chat("木", stop_reason=151643), ("\n",), "木", "eos"),
        (chat("木", matched_stop=151645), ("\n",), "木", "eos"),
        (chat("木", matched_stop="\n"), ("\n",), "木", "stop"),
        (chat("木"), ("\n",), "木", "stop"),
        (chat(""), (), "", "eos"),
        (chat("4", reasoning_content="2 + 2"), (), "<think>2 + 2</think>4", "eos"),
        (chat("4", reasoning="2 + 2"), (), "<think>2 + 2</think>4", "eos"),
        (chat(None, "length", reasoning_content="2 + "), (), "<think>2 + ", "length"),
    ],
)
def test_how_a_reply_ended_is_told_as_far_as_the_server_tells(
    reply: Reply, stops: tuple[str, ...], text: str, reason: str
) -> None:
    with scripted(served(lambda _: reply)) as server:
        answer = one(server.url, Question("心", decoding=Decoding(stop=stops)))
    assert (answer.text, answer.stop_reason, answer.error) == (text, reason, "")


# --- faults of single questions ---


def nonsense(body: object) -> Reply:
    return Reply(body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (nonsense(b"<html><body>It works!</body></html>"), "(no JSON): <html><body>It works!</body></html>"),
        (nonsense(b""), "(no JSON): empty"),
        (nonsense(b'{"choices": [{"finish'), '(no JSON): {"choices": [{"finish'),
        (nonsense(b'{"choices": "\xff\xfe\x1b[31m"}'), "(no JSON)"),
        (nonsense({"choices": []}), "(choices: List should have at least 1 item"),
        (nonsense({"error": "busy"}), "(choices: Field required)"),
        (nonsense({"choices": [{"finish_reason": "stop"}]}), "an answer without a text"),
        (nonsense({"choices": [{"finish_reason": None, "text": "x"}]}), "(choices.0.finish_reason: "),
        (chat("x", "content_filter"), "the reply ended with 'content_filter', not with stop or length"),
        (chat(None, "tool_calls"), "the reply ended with 'tool_calls', not with stop or length"),
        (Reply({"error": {"message": "too long\x1b[31m"}}, 400), "the server answered 400: too long\\x1b[31m"),
        (Reply({"detail": "no such field"}, 422), "the server answered 422: no such field"),
        (Reply(b"", 418), "the server answered 418: nothing"),
    ],
)
def test_nonsense_is_an_error_of_its_question_and_the_others_are_answered(reply: Reply, said: str) -> None:
    script = served(lambda asked: reply if asked.body["messages"][0]["content"] == "bad" else chat("fine"))
    with scripted(script) as server:
        bad, good = at(server.url).generate([Question("bad"), Question("good")])
    assert said in bad.error
    assert (bad.text, good.text, good.error) == ("", "fine", "")
    assert "\x1b" not in bad.error


def test_a_prompt_that_is_no_text_is_an_error_of_its_question() -> None:
    with scripted(served(lambda _: chat("fine"))) as server:
        bad, good = at(server.url).generate([Question("\ud800"), Question("good")])
    assert bad.error.startswith("the prompt is no text that can be sent: ")
    assert good.text == "fine"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_and_when_it_says(status: int) -> None:
    times: list[float] = []

    def script(_: Asked) -> Reply:
        times.append(time.monotonic())
        return Reply({"error": "busy"}, status, {"retry-after": "0.2"}) if len(times) < 4 else chat("now")

    with scripted(served(script)) as server:
        assert one(server.url).text == "now"
    waits = [after - before for before, after in pairwise(times)]
    assert len(waits) == 3
    assert all(0.19 < wait < 5 for wait in waits), waits


def test_a_server_that_stays_broken_is_an_error_after_the_retries() -> None:
    with scripted(served(lambda _: Reply({"error": "broken"}, 500, {"retry-after-ms": "1"}))) as server:
        assert one(server.url).error == "the server answered 500: broken"
        assert len(server.asked) == 1 + 1 + 5


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with scripted(served(lambda _: Reply({}, after_s=9))) as server:
        started = time.monotonic()
        answer = one(server.url, timeout_s=0.3)
        assert time.monotonic() - started < 8
    assert answer.error == f"{server.url} gave no answer within 0.3 s"


def test_a_server_that_goes_down_costs_a_few_questions_and_no_hour() -> None:
    with scripted(served(lambda _: chat("fine"))) as server:
        endpoint = at(server.url, concurrency=2, timeout_s=0.3)
    answers = endpoint.generate([Question(str(number)) for number in range(1000)])
    gave_up = f"not asked: {server.url} answered none of the last "
    assert sum(answer.error.startswith(gave_up) for answer in answers) >= 990
    assert all("cannot be reached" in answer.error or "gave no answer" in answer.error for answer in answers[:3])


# --- faults before anything is asked ---


def refused(url: str, model: str | None = "m") -> str:
    with pytest.raises(UserError) as raised:
        Endpoint(url, model).check()
    return raised.value.screen()


def test_a_server_that_is_down_is_one_users_error() -> None:
    url = f"http://127.0.0.1:{servers.free_port()}/v1"
    assert refused(url) == (
        f"--probe-endpoint {url}: nothing answers there (ConnectError: All connection attempts failed)\n"
        "    hint: start the server, or mend the address; they look like http://localhost:8000/v1"
    )


def test_a_refused_key_is_one_users_error_that_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(lambda _: Reply({"error": {"message": f"bad key {KEY}"}}, 401)) as server:
        assert refused(server.url) == (
            f"--probe-endpoint {server.url}: the server answered 401: bad key ***\n"
            "    hint: is the key in $OPENAI_API_KEY right?"
        )
        monkeypatch.delenv("OPENAI_API_KEY")
        assert refused(server.url).endswith("hint: $OPENAI_API_KEY is not set")


def test_an_unknown_model_is_one_users_error_with_what_there_is() -> None:
    script = served(lambda _: Reply({"error": {"message": "The model `qwen-8b` does not exist."}}, 404),
                    models("qwen3-8b", "llama"))  # fmt: skip
    with scripted(script) as server:
        assert refused(server.url, "qwen-8b") == (
            f"--probe-model qwen-8b: {server.url} does not answer for it "
            "(the server answered 404: The model `qwen-8b` does not exist.)\n"
            "    expected: one of qwen3-8b, llama\n"
            "    hint: did you mean qwen3-8b?"
        )
        assert refused(server.url, None) == (
            f"--probe-endpoint {server.url}: which model?\n    expected: --probe-model and one of qwen3-8b, llama"
        )


def test_the_only_model_need_not_be_named_and_one_that_is_not_listed_may_answer() -> None:
    with scripted(served(lambda _: chat("fine"), models("only", owned_by="vllm"))) as server:
        endpoint = Endpoint(server.url + "/")
        endpoint.check()
        assert (endpoint.model, endpoint.describe()) == ("only", f"vLLM at {server.url}")
        other = Endpoint(server.url, "alias")
        other.check()
        assert other.generate([Question("心")])[0].text == "fine"


def test_a_website_is_one_users_error() -> None:
    with scripted(lambda _: Reply(b"<html>hello</html>", headers={"content-type": "text/html"})) as server:
        address = server.url.removesuffix("/v1")
        assert refused(address) == (
            f"--probe-endpoint {address}: an answer that is none in OpenAI's protocol (no JSON): <html>hello</html>\n"
            "    expected: a server of OpenAI's protocol, such as vLLM, SGLang, llama.cpp or transformers serve\n"
            f"    hint: did you mean {address}/v1?"
        )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000", "--probe-endpoint localhost:8000 is no address"),
        ("ftp://h/v1", "--probe-endpoint ftp://h/v1 is no address"),
        ("http://h:port/v1", "--probe-endpoint http://h:port/v1 is no address"),
        ("http://", "--probe-endpoint http:// is no address"),
        (f"http://me:{KEY}@h/v1", "--probe-endpoint holds a name, a password or a query"),
        (f"http://h/v1?key={KEY}", "--probe-endpoint holds a name, a password or a query"),
    ],
)
def test_what_is_no_address_is_one_users_error(url: str, said: str) -> None:
    screen = refused(url)
    assert screen.startswith(f"{said}\n    expected: one like http://localhost:8000/v1")
    assert KEY not in screen


def test_an_address_may_be_pasted_with_what_stands_behind_it() -> None:
    assert Endpoint("http://h:1/v1/chat/completions").url == "http://h:1/v1"


def test_a_key_may_end_in_a_line_end_and_one_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    came: list[str] = []
    with scripted(served(lambda asked: came.append(asked.headers["authorization"]) or chat("yes"))) as server:
        assert one(server.url).text == "yes"
        assert came == [f"Bearer {KEY}"]
        for wrong in (f"{KEY}\n{KEY}", f"{KEY}é"):
            monkeypatch.setenv("OPENAI_API_KEY", wrong)
            screen = "$OPENAI_API_KEY holds characters that no key has\n    expected: printable ASCII"
            assert refused(server.url) == screen


def test_a_model_that_is_not_listed_and_answers_nonsense_fails_question_by_question() -> None:
    with scripted(served(lambda _: nonsense(b"{"), models("other"))) as server:
        assert "none in OpenAI's protocol (no JSON): {" in one(server.url).error


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError) as raised:
        Endpoint("http://localhost:8000/v1")
    assert raised.value.screen() == (
        "--probe-endpoint needs the library openai, which is not installed\n"
        "    hint: pip install 'recipe-runner[endpoint]'"
    )


def test_the_key_is_in_no_log_and_in_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script = served(lambda asked: Reply({"error": f"you sent {asked.headers['authorization']}"}, 400))
    with scripted(script) as server:
        answer = one(server.url)
    assert answer.error == "the server answered 400: you sent Bearer ***"
    assert KEY not in caplog.text
    assert "openai" in caplog.text


# --- a session ---

PROBE = """
from runner import probe

ROWS = [{"id": char, "char": char} for char in "心水木"]

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=6, gate={"max_regression": 0})
def test_char(case, reply):
    assert reply == case.char and reply.thinking == "hm"
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    shutil.copy(ROOT / "conftest.py", pytester.path / "conftest.py")
    pytester.makepyfile(test_p=PROBE)
    return pytester


def echo(*wrong: str) -> Callable[[Asked], Reply]:
    """A server that repeats what it is asked, but for some cases."""

    def answer(asked: Asked) -> Reply:
        said = asked.body["messages"][-1]["content"]
        return chat("?" if said in wrong else said, reasoning_content="hm")

    return served(answer, models("org/m", "other", owned_by="vllm"))


def test_a_session_on_a_server_has_table_verdicts_gate_and_baseline(project: pytest.Pytester) -> None:
    with scripted(echo("水")) as server:
        options = ("--probe-endpoint", server.url, "--probe-model", "org/m", "--log-level", "DEBUG")
        first = project.runpytest_inprocess("test_p.py", *options, "--probe-verdicts", "v.jsonl", "-v")
    assert first.parseoutcomes() == {"passed": 3, "missed": 1}
    first.stdout.fnmatch_lines(
        ["*test_char-org/m-U+5FC3] PASSED*", "*test_char-org/m-U+6C34] MISS*", "org/m *66.7 % of 3*"]
    )
    file = verdicts.read(project.path / "v.jsonl")
    assert (file.ckpt, file.weights_sha256) == ("org/m", "")
    row = file.verdicts[0]
    assert (row.reply, row.prompt) == ("心", '[{"role": "user", "content": "心"}]')
    about = {name: row.generation[name] for name in ("engine", "dtype", "stop_reason", "max_new_tokens", "thinking")}
    assert about == {
        "engine": f"vLLM at {server.url}", "dtype": "", "stop_reason": "eos", "max_new_tokens": 6, "thinking": "hm",
    }  # fmt: skip
    assert KEY not in first.stdout.str() + (project.path / "v.jsonl").read_text(encoding="utf-8")
    with scripted(echo("水", "木")) as server:
        options = ("--probe-endpoint", server.url, "--probe-model", "org/m", "--probe-baseline", "v.jsonl")
        second = project.runpytest_inprocess("test_p.py", *options)
    assert second.ret == pytest.ExitCode.TESTS_FAILED
    second.stdout.fnmatch_lines(["org/m *33.3 % of 3* -1 +0 *✗"])


def test_one_failing_question_is_one_error_verdict(project: pytest.Pytester) -> None:
    good = echo()
    script = served(lambda asked: Reply({"error": "no"}, 400) if "水" in str(asked.body) else good(asked))
    with scripted(script) as server:
        result = project.runpytest_inprocess(
            "test_p.py", "--probe-endpoint", server.url, "--probe-verdicts", "v.jsonl", "--probe-model", "m"
        )
    assert [(row.outcome, row.reason) for row in verdicts.read(project.path / "v.jsonl").verdicts] == [
        ("pass", ""), ("error", "the server answered 400: no"), ("pass", ""),
    ]  # fmt: skip
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_session_whose_server_is_down_asks_nothing_and_says_why(project: pytest.Pytester) -> None:
    url = f"http://127.0.0.1:{servers.free_port()}/v1"
    result = project.runpytest_inprocess("test_p.py", "--probe-endpoint", url, "--probe-model", "m")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.errlines[0].startswith(f"ERROR: --probe-endpoint {url}: nothing answers there (ConnectError")


def test_a_model_without_a_server_is_a_users_error(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("test_p.py", "--probe-model", "m")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.errlines[0] == "ERROR: --probe-model needs --probe-endpoint: the server that has the model"
    both = ("--probe-endpoint", "http://h/v1", "--probe-concurrency", "0")
    assert project.runpytest_inprocess("test_p.py", *both).errlines == [
        "ERROR: --probe-concurrency is 0, --probe-timeout is 600", "    expected: both above 0", "",
    ]  # fmt: skip


def test_asking_a_server_imports_no_torch() -> None:
    modules = "runner.probing.session, runner.probing.endpoint, openai, sys"
    script = f"import {modules}\nprint({{'torch', 'transformers'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
