"""Named by the recipes here; never run."""


def test_radical(case, reply):
    assert reply == case.radical


def test_names_character(case, reply):
    assert case.char in reply
