"""Templates of strangers: none takes long, none takes much, none reaches the internals."""

import time
from collections.abc import Callable

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runner.data.chat import ChatTemplate, TemplateFault, shipped
from runner.data.texts import Message
from runner.sandbox import rendering
from runner.templates import TemplateProblem, compile_template, render_value

DOUBLED = "{%% set ns = namespace(x='aaaa') %%}{%% for i in range(60) %%}%s{%% endfor %%}%s"
BOMBS = {
    "mul": "{{ 'a' * 10**9 }}",
    "pct": "{{ '%1000000000d' % 1 }}",
    "pct star": "{{ '%*d' % (10**9, 1) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "pct many": "{{ ('%s' * 100000) % (('a' * 100000,) * 100000) }}",
    "pct map": "{{ ('%(a)s' * 100000) % {'a': 'a' * 100000} }}",
    "center": "{{ 'a' | center(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "indent": "{{ 'a\n' * 1000 | indent(10**8) }}",
    "pow in": "{{ (2 ** 40000) ** 40000 }}",
    "intmul": "{% set ns = namespace(x=10**1000) %}{% for i in range(100) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "nested": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "nested if": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "macro tree": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "replace empty": "{{ ('a' * 1000000) | replace('', 'b' * 1000000) }}",
    "join": "{{ range(100000) | join('a' * 1000000) }}",
    "method join": "{{ ('a' * 1000000).join(['a'] * 100000) }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "format nested": "{{ '{:{}}'.format(1, 10**9) }}",
    "format many": "{{ ('{0}' * 100000).format('a' * 100000) }}",
    "format_map": "{{ '{a:999999999}'.format_map({'a': 1}) }}",
    "batch": "{{ [1] | batch(10**9, 0) | list }}",
    "slice": "{{ [1] | slice(10**9) | list }}",
    "round": "{{ 1 | round(10**9) }}",
    "round ceil": "{{ 1 | round(7000000, 'ceil') }}",
    "round text": "{{ 'a' | round(9, 'ceil') }}",
    "divided": "{% set x = ('f' * 4000000) | int(0, 16) %}{{ x // (x // 3) }}",
    "divisible": "{% set x = ('f' * 4000000) | int(0, 16) %}{{ x is divisibleby(3) }}",
    "from bytes": "{{ (1).from_bytes(('a' * 4000000).encode(), 'big') % 3 }}",
    "sum of lists": "{{ range(9999) | map(attribute='b', default=[1] * 999) | sum(start=[]) }}",
    "joined items": "{{ range(99999) | map(attribute='b', default='a' * 100000) | join }}",
    "views": "{% set v = {'a': 'a' * 100000}.values() %}{% for i in range(99999) %}{{ v | join }}{% endfor %}",
    "cut words": "{{ (' ' * 300000) | wordwrap(3) }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "wordwrap": "{{ ('a ' * 1000000) | wordwrap(1) }}",
    "wordwrap2": "{{ ('a ' * 10000) | wordwrap(1, wrapstring='b'*100000) }}",
    "urlize": "{{ ('http://a ' * 1000000) | urlize }}",
    "urlize rel": "{{ ('http://a.com ' * 1000) | urlize(rel='a'*100000) }}",
    "pprint": "{{ range(100000) | list | pprint }}",
    "xmlattr": "{{ dict(a='b'*10000000) | xmlattr }}",
    "tojson": "{{ [1]*100000 | tojson(indent=10**8) }}",
    "slices": "{% set x = range(100000) | list %}{% for i in range(100000) %}{% set y = x[1:] %}{% endfor %}",
    "in": "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% if 'b' in x %}{% endif %}{% endfor %}",
    "is in": "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% if 'b' is in x %}{% endif %}{% endfor %}",
    "count": "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x.count('aa') }}{% endfor %}",
    "sum": "{% for i in range(100000) %}{{ range(100000) | sum }}{% endfor %}",
    "select": "{% for i in range(100000) %}{{ range(100000) | select('none') | list }}{% endfor %}",
    "unique": "{% for i in range(100000) %}{{ range(100000) | unique | list }}{% endfor %}",
    "output many": "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x }}{% endfor %}",
    "cycle": "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
    "to_bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "encode": "{{ ('a' * 100000000).encode() }}",
    "namespaces": "{% for i in range(99999) %}{% for j in range(99999) %}{{ namespace(a=1) }}{% endfor %}{% endfor %}",
    "filter block": "{% filter center(10**9) %}a{% endfilter %}",
    "autoescape": "{% autoescape true %}{{ 'a' * 10**9 }}{% endautoescape %}",
    "truncate": "{{ 'a' | truncate(10**9, end='b' * 10**9) }}",
    "groupby": "{{ range(100000) | groupby('a') | list }}",
    "sort": "{% for i in range(1000) %}{{ range(100000)|sort }}{% endfor %}",
    "string": "{{ ([['a'*1000000]*1000]*1000) | string }}",
    "mod": "{{ 'a' is in ([['a'*1000000]*1000]*1000) }}",
    "doubled by ~": DOUBLED % ("{% set ns.x = ns.x ~ ns.x %}", "{{ ns.x }}"),
    "doubled by +": DOUBLED % ("{% set ns.x = ns.x + ns.x %}", "{{ ns.x }}"),
    "doubled by set": DOUBLED % ("{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}", ""),
    "doubled by list": DOUBLED % ("{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x }}"),
    "doubled by dict": DOUBLED % ("{% set ns.x = {'a': ns.x, 'b': ns.x} %}", "{{ ns.x == ns.x }}"),
    "doubled by dict()": DOUBLED % ("{% set ns.x = dict(a=ns.x, b=ns.x) %}", "{{ ns.x | tojson }}"),
    "doubled by ns": DOUBLED % ("{% set ns.x = namespace(a=ns.x, b=ns.x) %}", "{{ ns.x }}"),
    "doubled by replace": DOUBLED % ("{% set ns.x = ns.x.replace('a', 'aa') %}", ""),
    "doubled by replace f": DOUBLED % ("{% set ns.x = ns.x|replace('a', 'aa') %}", ""),
    "doubled item": DOUBLED % ("{% set ns.x = (ns.x, ns.x) %}", "{{ {}[ns.x] }}"),
    "doubled key": DOUBLED % ("{% set ns.x = (ns.x, ns.x) %}", "{{ {ns.x: 1} }}"),
}
DEEP = {
    "brackets": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "lists": "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "loops": "{% for a in [1] %}" * 60 + "{% endfor %}" * 60,
    "signs": "{{ " + "-" * 60000 + "1 }}",
    "filters": "{{ 1" + "|abs" * 9000 + " }}",
    "sums": "{{ 1" + "+1" * 20000 + " }}",
    "calls": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "turns": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
}
LONGEST_S = 10.0
"""Of processor time, and far more than any takes: what is not charged takes minutes, or all memory."""


def _as_row(source: str) -> str:
    return compile_template(source).render({})


def _as_value(source: str) -> str:
    return str(render_value(source, {}))


def _as_chat(source: str) -> str:
    return ChatTemplate(source, "a stranger").render([Message("user", "hi")], {})


WAYS = {"a row": _as_row, "a value": _as_value, "a conversation": _as_chat}


def _problem(render: Callable[[str], str], source: str) -> str:
    """What a template is refused with, soon."""
    began = time.process_time()
    with pytest.raises((TemplateProblem, TemplateFault)) as caught:
        render(source)
    assert time.process_time() - began < LONGEST_S
    return str(caught.value)


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_grows_without_end_is_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "MAX_STEPS", 100_000)  # a tenth is spent in a tenth of the time
    render = [_as_row, _as_value, _as_chat][list(BOMBS).index(name) % 3]  # what ends it is the same in all
    said = _problem(render, BOMBS[name])
    assert said == "it takes more than a template may: 100,000 steps of loops, calls and characters" or "bits" in said


@pytest.mark.parametrize("name", DEEP)
def test_a_template_that_is_nested_without_end_is_refused(name: str) -> None:
    for render in (_as_row, _as_chat):
        assert _problem(render, DEEP[name]).startswith("it is nested too deep")


def test_a_template_that_is_too_long_is_refused_before_it_is_compiled() -> None:
    for render in WAYS.values():
        assert _problem(render, "{{ 1 }}" * 14_000) == "it has 98,000 characters; a template may have 65,536"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format('') + 1 }}",
        "{{ namespace.__init__.__globals__['os'] }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ ([''] | map(attribute='__class__') | first).__mro__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('true') }}",
        "{{ range(10**9) }}",
        "{{ lipsum(n=10**9) }}",
        "{{ messages.append(1) or [].append(1) }}",
    ],
)
def test_a_template_reaches_no_internals_and_no_file(source: str) -> None:
    for render in WAYS.values():
        _problem(render, source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 'ab' * 3 }}{{ 2 ** 10 }}{{ 7 // 2 }}{{ '%05.1f' % 2 }}", "ababab10243002.0"),
        ("{% for x in [3, 1, 2] | sort if x > 1 %}{{ loop.index }}:{{ x }} {% endfor %}", "1:2 2:3 "),
        ("{{ 'a b'.replace(' ', '-') ~ '{:>4}'.format(7) }}", "a-b   7"),
        ("{{ [1, 2] == [1, 2] and 'b' in 'abc' and 'x' not in ['y'] and (1 < 2 < 3) }}", "True"),
        ("{% macro m(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}{{ [1, 2, 3][1:] }}", "12[2, 3]"),
        ("{{ {'a': 1, 'b': (2, 3)} | tojson }}{{ ['x', 'y'] | join(', ') }}{{ 'a' | center(3) }}", None),
        ("{% set ns = namespace(n=0) %}{% for i in range(9) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "36"),
    ],
)
def test_what_templates_do_is_done_as_before(source: str, text: str | None) -> None:
    theirs = ImmutableSandboxedEnvironment().from_string(source).render()
    assert _as_row(source) == theirs
    assert text in (theirs, None)


def test_a_conversation_of_a_thousand_turns_is_within_the_budget() -> None:
    turns = [Message("user" if number % 2 else "assistant", "what is it? " * 50) for number in range(1000)]
    for name in ("chatml", "qwen3", "llama3", "alpaca", "plain"):
        assert (
            shipped(name).render(turns[1:], {"bos_token": "<s>", "eos_token": "</s>"}).count("what is it?") == 999 * 50
        )


def test_every_rendering_has_a_budget_of_its_own() -> None:
    template = compile_template("{% for i in range(90000) %}{% endfor %}")
    assert [template.render({}) for _ in range(12)] == [""] * 12
