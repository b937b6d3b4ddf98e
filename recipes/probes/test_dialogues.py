"""Conversations about a character, of which only the first turn names it: is the answer about what was spoken of?

Each conversation has three questions. The first is asked alone; the others with what was said before them, the right
answers, so that a slip in an early turn is no excuse. In a recipe a suite asks its own: `cases:` is a data set with
`messages:`, whose rows have everything before the last answer in `messages` and that answer in `completion`.
"""

from runner import probe

ROWS = [
    {"char": "语", "radical": "讠", "strokes": 9, "pinyin": "yǔ"},
    {"char": "林", "radical": "木", "strokes": 8, "pinyin": "lín"},
    {"char": "河", "radical": "氵", "strokes": 8, "pinyin": "hé"},
    {"char": "思", "radical": "心", "strokes": 9, "pinyin": "sī"},
    {"char": "钟", "radical": "钅", "strokes": 9, "pinyin": "zhōng"},
]


def conversation(row):
    """The three questions about a character, with the right answers but for the last."""
    said = [
        f"`{row['char']}`的部首是什么？", f"`{row['char']}`的部首是`{row['radical']}部`",
        "笔画数呢？", f"`{row['char']}`的笔画数是`{row['strokes']}`",
        "读音呢？",
    ]  # fmt: skip
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(said)]


CASES = [
    {"id": row["char"], **row, "messages": conversation(row), "completion": f"`{row['char']}`的读音是`{row['pinyin']}`"}
    for row in ROWS
]


@probe(cases=CASES, prompt="`{{ char }}`的部首是什么？")
def test_first_answer(case, reply):
    """The first question, which names the character."""
    assert reply == f"`{case.char}`的部首是`{case.radical}部`"


@probe(
    cases=CASES,
    messages=[
        {"role": "user", "content": "`{{ char }}`的部首是什么？"},
        {"role": "assistant", "content": "`{{ char }}`的部首是`{{ radical }}部`"},
        {"role": "user", "content": "笔画数呢？"},
    ],
)
def test_second_answer(case, reply):
    """The second, which does not."""
    assert reply == f"`{case.char}`的笔画数是`{case.strokes}`"


@probe(cases=CASES, messages="{{ messages }}")
def test_last_answer(case, reply):
    """The last question of the conversation as it was written."""
    assert reply == case.completion


@probe(cases=CASES, messages="{{ messages }}")
def test_last_answer_names_character(case, reply):
    """Right or wrong about the fact: the answer is about the character that was spoken of."""
    assert f"`{case.char}`" in reply
