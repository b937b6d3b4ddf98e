"""Named by a recipe here; asks nothing."""


def check_radical(case, reply):
    assert reply == case.radical
