"""Every hostile reply through every output: none commands a terminal, a browser, a forge or a reader of XML."""

import html
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lxml.etree
import lxml.html
import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from rich.console import Console

import runner.probing.warm  # noqa: F401 - pytester forgets, and imports anew, what a session imports first
from runner import report
from runner.cli import cli
from runner.console import RunView, Turned, ending_screen, print_error, run_screen
from runner.errors import Problem, UserError, Where, cells, printable
from runner.probing.chatting import converse
from runner.tables import decision_line
from tests.hostile_replies import HALVES, REPLIES
from tests.recorded_run import write_run_folder
from tests.screens import decision, flip
from tests.servers import Asked, Reply, chat, models, scripted
from tests.test_console import ENDING, ROWS

pytest_plugins = ["pytester"]

ALL = (*REPLIES, *HALVES)


def assert_a_terminal_obeys_nothing(text: str) -> None:
    assert sorted({char for char in text if not char.isprintable() and char != "\n"}) == []


# --- records, as the screens of a run show them ---


def rendered(shown: Any, width: int = 100) -> str:
    """Without colours, so that every escape in it would be a reply's."""
    if isinstance(shown, str):
        return shown
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True, legacy_windows=False)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_screens_of_a_run_show_every_reply_as_one_printable_line() -> None:
    for reply in ALL:
        one = flip(reply, f"{reply} after")
        view = RunView("r", 1.0, [], [], ROWS, ["held_out"], [Turned("lost", "held_out", one)])
        loud = decision(False, 1, 2, lost=(one,), notes=(reply,), reasons=(reply,))
        ending = replace(ENDING, result=[loud], also_red=(reply,), regressions=[("here", (one,))], stopped="")
        for shown in (run_screen(view, 80, 24), decision_line("held_out", loud)):
            assert_a_terminal_obeys_nothing(rendered(shown))
        ended = rendered(ending_screen(ending), 400)
        assert_a_terminal_obeys_nothing(ended)
        assert printable(reply)[:20].split("⏎")[0].strip() in ended


def test_an_error_that_quotes_a_reply_or_a_line_of_a_file_is_shown_as_text() -> None:
    for reply in ALL:
        made = Console(file=io.StringIO(), width=80, color_system=None, force_terminal=True)
        where = Where("a.yaml", 3, 2, 1, reply.split("\n")[0])
        print_error(made, UserError(Problem(reply, where, reply, reply)))
        assert isinstance(made.file, io.StringIO)
        assert_a_terminal_obeys_nothing(made.file.getvalue())


class Parrot:
    """What answers a talk here is of no matter."""

    has_template = True

    def say(self, text: str) -> str:
        return ALL[int(text)] if int(text) % 2 else self._refuse(ALL[int(text)])

    def _refuse(self, reply: str) -> str:
        raise UserError(reply, hint=reply)


def test_a_talk_prints_replies_and_faults_that_no_terminal_obeys() -> None:
    heard: list[str] = []
    converse(Parrot(), iter(map(str, range(len(ALL)))), heard.append)  # type: ignore[arg-type]
    assert len(heard) == len(ALL)
    assert_a_terminal_obeys_nothing("\n".join(heard))


# --- a run folder, and every command that reads one ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three checkpoints; every reply is one of the corpus, and the last checkpoint loses them all."""
    root = tmp_path_factory.mktemp("hostile") / "p"
    return write_run_folder(root, 3, len(REPLIES), said=REPLIES, lost_at_end=len(REPLIES))


def printed(*arguments: str | Path) -> str:
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False).output


def test_commands_that_read_a_run_print_nothing_that_a_terminal_obeys(run: Path) -> None:
    before, after = run / "qa" / "ckpt-2", run / "qa" / "ckpt-6"
    shown = [printed("show", run), printed("compare", "--all", before, after), printed("list", run.parent)]
    shown += [printed("bisect", f"U+{0x4E00 + case:X}", run) for case in range(0, len(REPLIES), 9)]
    assert "[bold red]rich[/bold red]" in shown[1]
    for text in shown:
        assert_a_terminal_obeys_nothing(text)


RENDERED = {
    "h1", "h2", "h3", "h4", "p", "strong", "em", "ul", "ol", "li", "code", "pre", "table", "thead", "tbody", "tr", "th",
    "td", "div", "details", "summary", "br", "hr",
}  # fmt: skip


def assert_markdown_holds_no_markup_of_a_reply(text: str) -> None:
    """As a forge renders it: with tables, struck words, raw HTML and addresses that become links by themselves."""
    page = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    tree = lxml.html.fromstring(f"<div>{page}</div>")
    assert {element.tag for element in tree.iter()} <= RENDERED
    assert [element.attrib for element in tree.iter() if set(element.attrib) - {"class", "style"}] == []
    outside = "".join(tree.xpath(".//text()[not(ancestor::code) and not(ancestor::pre)]"))
    assert re.findall(r"@\w|#\d", outside) == []
    bare = re.sub(r"<code>.*?</code>|^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"https?://|www\.", bare, re.IGNORECASE) == []  # a forge makes links of them by itself
    assert_a_terminal_obeys_nothing(text)


def test_markdown_that_is_made_of_replies_is_text_in_a_forge(run: Path) -> None:
    compared = printed("compare", "--markdown", "--all", run / "qa" / "ckpt-2", run / "qa" / "ckpt-6")
    reported = printed("report", "--markdown", run)
    assert html.unescape(compared).count("window.INJECTED") >= 13
    for text in (compared, reported):
        assert_markdown_holds_no_markup_of_a_reply(text)


BROWSER = shutil.which("chromium")


@pytest.fixture
def chromium() -> Iterator[Any]:
    """Closed before the next test: playwright's loop would be in the way of another."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


EVERY_CASE = """async count => {
    const made = [];
    for (let at = 0; at < count; at += 1) {
        made.push(...[...document.querySelectorAll(".said *")].map(one => one.tagName));
        document.querySelector("dialog").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
        await new Promise(done => setTimeout(done));
    }
    return made;
}"""
"""One case after the other, as its keys go through them; the kinds of all elements that show what was said."""
ALLOWED = {"BUTTON", "SPAN", "B", "LI", "DEL", "INS", "I", "DIV", "MARK"}


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_in_a_report_no_reply_runs_makes_an_element_or_fetches(run: Path, chromium: Any) -> None:
    page = report.write([run]).path
    tab = chromium.new_page(viewport={"width": 1200, "height": 900})
    heard: list[str] = []
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: heard.append(request.url))
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-drawn=yes]")
    for at in ("qa@2", "qa@6"):
        tab.locator(f'button.cell[data-suite="held_out"][data-at="{at}"]').click()
        tab.wait_for_selector("dialog[open] .case")
        assert tab.locator("#count").inner_text() == f"{len(REPLIES)} of {len(REPLIES)}"
        made = tab.evaluate("[...document.querySelectorAll('#list *')].map(one => one.tagName)")
        assert set(made) <= ALLOWED
        if at == "qa@6":  # what was said before is beside it
            tab.locator(".case").first.click()
            assert set(tab.evaluate(EVERY_CASE, len(REPLIES))) <= ALLOWED
        tab.keyboard.press("Escape")
    assert tab.evaluate("window.INJECTED") is None
    acting = "iframe, img, object, embed, base, math, a[href*=injected]"
    assert tab.evaluate("acting => document.querySelectorAll(acting).length", acting) == 0
    tab.close()
    assert [one for one in heard if not one.startswith(("data:", "blob:"))] == [page.as_uri()]


# --- a session of pytest, in GitHub Actions ---

PROBE = """
import pytest
from runner import probe

@probe(cases="replies.jsonl", prompt="{{ text }}")
def test_missed(case, reply):
    print(reply)
    assert reply == case.id, reply

@probe(cases="replies.jsonl", prompt="{{ text }}")
def test_raised(case, reply):
    raise ValueError(reply)

@probe(cases="replies.jsonl", prompt="{{ text }}", gate={"min_pass_rate": 0.9})
def test_gated(case, reply):
    assert not case.text, reply

@probe(cases="replies.jsonl", prompt="{{ text }}")
def test_skipped(case, reply):
    pytest.skip(reply)
"""


def parrot(asked: Asked) -> Reply:
    return models("m") if asked.path.endswith("/models") else chat(asked.body["messages"][-1]["content"])


@pytest.fixture
def session(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """The folder of a session that was asked and told every hostile text, with all that pytest can show of it."""
    rows = [{"id": f"c{number}", "text": text} for number, text in enumerate(REPLIES) if text.strip()]
    folder = project.path / "probes"
    (folder / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "test_p.py").write_text(PROBE, encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(project.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.path / "summary.md"))
    options = ["--junitxml", "j.xml", "-o", "junit_logging=all", "-rA", "-vv", "--probe-verdicts", "v.jsonl"]
    with scripted(parrot) as server:
        done = project.runpytest_inprocess("probes", "--probe-endpoint", server.url, "--probe-model", "m", *options)
    return project.path, done.stdout.str() + done.stderr.str()


def test_a_session_of_pytest_shows_replies_as_text_wherever_they_go(session: tuple[Path, str]) -> None:
    folder, shown = session
    asked = sum(bool(text.strip()) for text in REPLIES)
    assert_a_terminal_obeys_nothing(shown)
    assert_no_line_commands_the_runner_of_github(shown)
    assert_markdown_holds_no_markup_of_a_reply((folder / "summary.md").read_text(encoding="utf-8"))
    assert_junit_holds_every_case_once(folder / "j.xml", asked)


def assert_no_line_commands_the_runner_of_github(shown: str) -> None:
    """As the runner reads it: `::…` after spaces, `##[…` anywhere, unless commands are stopped."""
    stopped, obeyed = "", []
    for line in shown.splitlines():
        text = line.strip()
        if stopped:
            stopped = "" if text == f"::{stopped}::" else stopped
        elif text.startswith("::stop-commands::"):
            stopped = text.removeprefix("::stop-commands::")
            assert re.fullmatch("[0-9a-f]{32}", stopped)
        elif text.startswith("::") or "##[" in text:
            obeyed.append(text)
    assert stopped == ""
    assert len(obeyed) == 10
    for command in obeyed:
        assert re.match(r"::error file=probes/test_p\.py,line=\d+,title=\w+\[[\w-]+\]::", command)


ELEMENTS = {
    "testsuites", "testsuite", "testcase", "failure", "error", "skipped", "system-out", "system-err", "properties",
    "property",
}  # fmt: skip


def assert_junit_holds_every_case_once(file: Path, asked: int) -> None:
    tree = lxml.etree.parse(file, lxml.etree.XMLParser(resolve_entities=False))
    assert tree.docinfo.doctype == ""
    assert {element.tag for element in tree.iter()} <= ELEMENTS  # comments and instructions have no name
    names = [case.get("name") for case in tree.iter("testcase")]
    assert len(names) == len(set(names)) == 4 * asked + 1
    assert all(re.fullmatch(r"(test_\w+|gate)\[[\w-]+\]", str(name)) for name in names)
    assert_a_terminal_obeys_nothing("".join(tree.getroot().itertext()).replace("\t", ""))
    attributes = [value for element in tree.iter() for value in element.attrib.values()]
    assert_a_terminal_obeys_nothing("".join(map(str, attributes)))


def test_the_corpus_is_large_and_shows_itself_in_cells() -> None:
    assert len(set(ALL)) >= 100
    assert all(cells(printable(reply)) >= 0 for reply in ALL)
