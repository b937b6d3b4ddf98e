"""What a model knew of characters before it learned something else: radical, strokes and reading, as they were trained.

A recipe's suite names its own rows: `cases:` with the columns char, radical, strokes and pinyin. Each is three cases.
"""

from runner import probe


@probe(prompt="汉字`{{ char }}`的部首是什么？", cluster="char")
def test_radical(case, reply):
    """The radical, to the character."""
    assert reply == f"汉字`{case.char}`的部首是`{case.radical}部`"


@probe(prompt="汉字`{{ char }}`的笔画数是多少？", cluster="char")
def test_strokes(case, reply):
    """The number of strokes, to the character."""
    assert reply == f"汉字`{case.char}`的笔画数是`{case.strokes}`"


@probe(prompt="汉字`{{ char }}`的读音是什么？", cluster="char")
def test_pinyin(case, reply):
    """The reading, to the character."""
    assert reply == f"汉字`{case.char}`的读音是`{case.pinyin}`"
