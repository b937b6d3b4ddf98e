"""runner.markdown: what a model said cannot be markup."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import printable
from runner.markdown import code, words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("汉字`心`", "<code>汉字&#96;心&#96;</code>"),
        ("a|b\n<b>", "<code>a&#124;b⏎&#60;b&#62;</code>"),
        ("@everyone [x](http://y)", "<code>&#64;everyone &#91;x&#93;(http&#58;//y)</code>"),
        ("\x1b[2J\\", "<code>&#92;x1b&#91;2J&#92;</code>"),
    ],
)
def test_what_markdown_would_read_is_written_by_its_number(text: str, shown: str) -> None:
    assert code(text) == shown


def test_nobody_is_mentioned_and_no_issue_is_named() -> None:
    assert words("@all #1") == "&#64;&#8203;all &#35;&#8203;1"


@given(st.text())
def test_a_reader_sees_every_text_as_it_is_on_one_line(text: str) -> None:
    written = words(text)
    assert html.unescape(written).replace("@\u200b", "@").replace("#\u200b", "#") == printable(text)
    assert not re.search(r"[\n|`<>*_\[\]@\\]", written)
