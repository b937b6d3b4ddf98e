"""Made-up clans of characters (recipes/data/clans.tsv): new facts, which nothing but training can tell a model.

A recipe's suite names its own rows: `cases:` with the columns char and clan.
"""

from runner import probe


@probe(prompt="汉字`{{ char }}`属于哪个家族？", cluster="char")
def test_clan(case, reply):
    """The answer as it was trained, to the character."""
    assert reply == f"汉字`{case.char}`属于`{case.clan}`家族"
