"""A server that answers instead of a local engine: any that speaks OpenAI's protocol, many questions at a time.

The library `openai` speaks it: connections, retries with backoff, `Retry-After`. What a server says is untrusted, so
its bodies are read here, field by field (`runner.probing.protocol`), and no further than `answer_limit` allows. The key
comes from the environment and goes into the request alone, to the address that was given and nowhere else: a redirect
is not followed. It is cut out of every text that leaves this module.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runner import underway
from runner.errors import UserError, nearest, printable
from runner.probing.protocol import Nonsense, Served, answer_of, served
from runner.probing.questions import Answer, Question
from runner.probing.refusals import KEY, clean, key_hint, secret, why

if TYPE_CHECKING:
    from openai import AsyncOpenAI

DEFAULT_CONCURRENCY = 16
DEFAULT_TIMEOUT_S = 600.0
_RETRIES = 5
"""Of each question, after 0.5, 1, 2, 4 and 8 s, or when the server says so; as far as its time reaches."""
_KNOCK_S, _KNOCK_RETRIES = 30.0, 2
"""For the first look at the server."""
_EXAMPLE = "http://localhost:8000/v1"
_NO_CHOICES = (
    "a closed question (choices=) needs the log probability of given texts, which servers do not tell: "
    "ask a local checkpoint with --ckpt"
)


class Endpoint:
    """A model behind an address, ready to answer.

    Raises:
        UserError: the address is none, the key cannot be sent, or the library is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: where `/models` and `/chat/completions` are, such as http://localhost:8000/v1.
            model: as the server names it; None takes the only one there is, see `check`.
            concurrency: questions that are with the server at a time.
            timeout_s: how long one question may take, its retries too.
        """
        if concurrency < 1 or not timeout_s > 0:
            raise UserError(
                f"--probe-concurrency is {concurrency}, --probe-timeout is {timeout_s:g}", expected="both above 0"
            )
        _installed()
        secret()  # one that cannot be sent is said now
        self.url = _address(url)
        self.model = model or ""
        self._concurrency, self._timeout_s = concurrency, timeout_s
        self._served: Served | None = None
        self._lost = 0
        """Questions in a row that did not reach the server."""

    def describe(self) -> str:
        """What a verdict calls the engine: the kind of server, where it tells, and the address."""
        return f"{(self._served.server if self._served else '') or 'server'} at {self.url}"

    # --- the first look ---

    def check(self) -> None:
        """Find the server, and the model on it, before anything is asked.

        Raises:
            UserError: nothing answers there, something else does, the key is refused, there is no such model.
        """
        asyncio.run(self._check())

    async def _check(self) -> None:
        import openai

        try:
            async with asyncio.timeout(2 * _KNOCK_S), self._client(_KNOCK_S, _KNOCK_RETRIES) as client:
                listed = await _listed(client)
                chosen = self._choose(listed)
                if chosen is None:
                    chosen = await self._unlisted(client, listed)
        except TimeoutError:  # each byte may come in time, and the whole never
            raise UserError(f"--probe-endpoint {self.url}: no whole answer within {2 * _KNOCK_S:g} s") from None
        except openai.APIConnectionError as error:
            raise UserError(
                f"--probe-endpoint {self.url}: nothing answers there ({why(error)})",
                hint=f"start the server, or mend the address; they look like {_EXAMPLE}",
            ) from None
        except openai.APIStatusError as error:
            raise UserError(f"--probe-endpoint {self.url}: {why(error)}", hint=key_hint(error.status_code)) from None
        except Nonsense as error:
            raise UserError(
                f"--probe-endpoint {self.url}: {clean(str(error))}",
                expected="a server of OpenAI's protocol, such as vLLM, SGLang, llama.cpp or transformers serve",
                hint=self._version_hint(),
            ) from None
        self.model, self._served = chosen.model, chosen

    def _choose(self, listed: Sequence[Served]) -> Served | None:
        """The model that was named, or the only one; None where it was named and is not listed."""
        if self.model:
            return next((one for one in listed if one.model == self.model), None)
        if len(listed) == 1:
            return listed[0]
        raise UserError(
            f"--probe-endpoint {self.url}: which model?",
            expected=f"--probe-model and one of {_names(listed)}" if listed else "--probe-model NAME",
        )

    async def _unlisted(self, client: AsyncOpenAI, listed: Sequence[Served]) -> Served:
        """Ask a model that is not listed for one token: some servers load what they do not list."""
        import openai

        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.chat.completions.with_raw_response.create(
                model=self.model, messages=[{"role": "user", "content": "1"}], max_tokens=1
            ),
            lambda: client.completions.with_raw_response.create(model=self.model, prompt="1", max_tokens=1),
        ]
        refusals: list[openai.APIStatusError] = []
        for call in calls:
            try:
                await call()
            except openai.APIStatusError as error:
                refusals.append(error)
            else:
                return Served(self.model, listed[0].server if listed else "")
        if hint := key_hint(refusals[0].status_code):
            raise UserError(f"--probe-endpoint {self.url}: {why(refusals[0])}", hint=hint)
        close = nearest(self.model, [one.model for one in listed])
        raise UserError(
            f"--probe-model {self.model}: {self.url} does not answer for it ({why(refusals[0])})",
            expected=f"one of {_names(listed)}" if listed else None,
            hint=f"did you mean {close}?" if close else None if listed else self._version_hint(),
        )

    # --- asking ---

    def generate(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers, in the order of the questions. A question that fails has an `error`; the others are answered."""
        started = time.perf_counter()
        answers = asyncio.run(self._ask_all(questions))
        share_s = (time.perf_counter() - started) / max(len(questions), 1)
        return [dataclasses.replace(answer, seconds=share_s) for answer in answers]

    async def _ask_all(self, questions: Sequence[Question]) -> list[Answer]:
        answers = [Answer()] * len(questions)
        waiting = iter(enumerate(questions))
        self._lost = 0

        async def work(client: AsyncOpenAI, waiting: Iterator[tuple[int, Question]]) -> None:
            for place, question in waiting:
                answers[place] = await self._ask(client, question)
                answering.advance()

        with underway.work("answering", len(questions), "questions") as answering:
            async with self._client(self._timeout_s, _RETRIES) as client, asyncio.TaskGroup() as workers:
                for _ in range(min(self._concurrency, len(questions))):
                    workers.create_task(work(client, waiting))
        return answers

    async def _ask(self, client: AsyncOpenAI, question: Question) -> Answer:
        import openai

        prompt = _prompt(question)
        if question.choices:
            return Answer(prompt, error=_NO_CHOICES)
        if self._lost >= max(self._concurrency, 3):
            return Answer(prompt, error=f"not asked: {self.url} answered none of the last {self._lost} questions")
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = answer_of(await self._send(client, question), question)
        except (TimeoutError, openai.APITimeoutError):
            self._lost += 1
            return Answer(prompt, error=f"{self.url} gave no answer within {self._timeout_s:g} s")
        except openai.APIConnectionError as error:
            self._lost += 1
            return Answer(prompt, error=f"{self.url} cannot be reached ({why(error)})")
        except (openai.APIStatusError, Nonsense, UnicodeError) as error:
            self._lost = 0
            hint = key_hint(error.status_code) if isinstance(error, openai.APIStatusError) else None
            return Answer(prompt, error=why(error) + (f"; {hint}" if hint else ""))
        self._lost = 0
        return dataclasses.replace(answer, prompt=prompt, text=clean(answer.text))  # a server may say the key again

    async def _send(self, client: AsyncOpenAI, question: Question) -> bytes:
        """The body of the server's answer; the decoding is sent whole, so that nothing is left to the server."""
        decoding = question.decoding
        said: dict[str, Any] = {
            "model": self.model, "max_tokens": decoding.max_new_tokens, "temperature": decoding.temperature,
            "top_p": decoding.top_p, "seed": question.seed % 2**31,
        }  # fmt: skip
        if decoding.stop:
            said["stop"] = list(decoding.stop)
        extra = self._served.settings(decoding) if self._served else {}
        if question.raw:
            completions = client.completions.with_raw_response
            answer = await completions.create(**said, prompt=question.prompt, extra_body=extra)
        else:
            if template := json.loads(question.template_kwargs):
                extra["chat_template_kwargs"] = template
            chat = client.chat.completions.with_raw_response
            answer = await chat.create(**said, messages=_messages(question), extra_body=extra)
        return _whole(answer.content)

    def _client(self, timeout_s: float, retries: int) -> AsyncOpenAI:
        import openai

        from runner.probing.answer_limit import limit

        # a compressed answer could be a thousand times as large as what was counted
        http = openai.DefaultAsyncHttpxClient(
            follow_redirects=False, event_hooks={"response": [limit]}, headers={"accept-encoding": "identity"}
        )
        # local servers want no key, and the library one
        key = secret() or "none"
        return openai.AsyncOpenAI(
            base_url=self.url, api_key=key, timeout=timeout_s, max_retries=retries, http_client=http
        )

    def _version_hint(self) -> str | None:
        return None if self.url.endswith("/v1") else f"did you mean {self.url}/v1?"


async def _listed(client: AsyncOpenAI) -> list[Served]:
    """What `/models` offers; nothing where the server has no such list, or fails to make one."""
    import openai

    try:
        return served(_whole((await client.models.with_raw_response.list()).content))
    except openai.APIStatusError as error:
        if error.status_code in (401, 403) or 300 <= error.status_code < 400:
            raise
        return []


def _whole(body: bytes) -> bytes:
    """The body of an answer.

    Raises:
        Nonsense: it was cut.
    """
    from runner.probing.answer_limit import MAX_ANSWER_BYTES

    if len(body) >= MAX_ANSWER_BYTES:
        raise Nonsense(f"an answer of more than {MAX_ANSWER_BYTES // 2**20} MB")
    return body


def _messages(question: Question) -> list[Any]:
    turns = [{"role": turn.role, "content": turn.content} for turn in question.messages]
    return turns or [{"role": "user", "content": question.prompt}]


def _prompt(question: Question) -> str:
    return question.prompt if question.raw else json.dumps(_messages(question), ensure_ascii=False)


def _names(listed: Sequence[Served]) -> str:
    names = [printable(one.model) for one in listed]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _address(url: str) -> str:
    """The address, without a slash at its end.

    Raises:
        UserError: it is none, or holds what may be a password.
    """
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        raise UserError(f"--probe-endpoint {url} is no address", expected=f"one like {_EXAMPLE}") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        # not repeated on the screen: it may be in a log that many read
        raise UserError(
            "--probe-endpoint holds a name, a password or a query",
            expected=f"one like {_EXAMPLE}",
            hint=f"a key belongs into ${KEY}",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_one:
        raise UserError(f"--probe-endpoint {url} is no address", expected=f"one like {_EXAMPLE}")
    for end in ("/chat/completions", "/completions", "/models"):
        url = url.rstrip("/").removesuffix(end)
    return url.rstrip("/")


def _installed() -> None:
    try:
        importlib.import_module("openai")
    except ModuleNotFoundError as error:
        if error.name != "openai":
            raise
        raise UserError(
            "--probe-endpoint needs the library openai, which is not installed",
            hint="pip install 'recipe-runner[endpoint]'",
        ) from None
