"""An independent reading of the novel rules: from the words of a case alone, by trying everything out, to its answer.

It shares nothing with the generator: it reads rule and question as a person would, and simulates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

Case = dict[str, Any]


def rule_answers(case: Case) -> set[tuple[str, ...]]:
    """Every answer that rule and question allow; one, where they are well made."""
    return set(_READ[case["family"]](case["rule"], case["question"]))


def control_answers(case: Case) -> set[tuple[str, ...]]:
    """The same of the control."""
    return set(_CONTROL[case["family"]](case["control"]))


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    assert match, f"{pattern} is not in {text}"
    return match.groups()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _value(expression: str, **names: int) -> int:
    assert re.fullmatch(r"[\dab+\-*() ]+", expression), expression
    return int(eval(expression, {"__builtins__": {}}, names))


def _operator(rule: str, question: str) -> Iterator[tuple[str, ...]]:
    symbol, meant = _found(r"a (\S) b = (.+?)[。.]", rule)
    meant = meant.replace("×", "*").replace("−", "-")
    asked = question.replace(symbol, "@")
    twice = re.search(r"\((\d+) @ (\d+)\) @ (\d+)", asked)
    a, b = map(int, twice.groups()[:2] if twice else _found(r"(\d+) @ (\d+)", asked))
    value = _value(meant, a=a, b=b)
    yield (str(_value(meant, a=value, b=int(twice[3])) if twice else value),)


def _sum(control: str) -> Iterator[tuple[str, ...]]:
    yield (str(sum(_numbers(control))),)


def _pairing(rule: str, question: str) -> Iterator[tuple[str, ...]]:
    if "编号" in rule or "numbered" in rule:
        last = _numbers(rule)[1]
        partner = dict(zip(range(1, last + 1), range(last, 0, -1), strict=True))
        yield tuple(sorted(str(partner[number]) for number in _numbers(question)))
        return
    there, taken = _numbers(question)
    groups = re.search(r"每(\d+)\S一组|groups of (\d+)|都是成对的()|live in pairs()", rule)
    if groups is None:
        more = (_numbers(rule) or [1])[0]  # 另一个, another
        left = list(range(there))
        for _ in range(taken):
            del left[: 1 + more]
        yield (str(len(left)),)
        return
    size = int(groups[1] or groups[2] or 2)
    outcomes = {
        str(there - size * len(touched))
        for chosen in combinations(range(there), taken)
        if (touched := {one // size for one in chosen}) and _allowed(question, len(touched), taken)
    }
    if re.search("所有可能|every possible", question):
        yield tuple(sorted(outcomes))
    else:
        yield from ((outcome,) for outcome in outcomes)


def _allowed(question: str, groups: int, taken: int) -> bool:
    if re.search("同一组|same group", question):
        return groups == 1
    return groups == taken if re.search("每一组只|another group", question) else True


def _taking_away(control: str) -> Iterator[tuple[str, ...]]:
    numbers = _numbers(control)
    if "编号" in control or "numbered" in control:
        yield tuple(sorted((str(numbers[2] - 1), str(numbers[2] + 1))))
    else:
        yield (str(numbers[0] - numbers[1]),)


WOMAN = {"mother", "sister", "母亲", "姐姐"}
RELATIVES = {
    "aunt": [("mother", "sister"), ("father", "sister")], "uncle": [("mother", "brother"), ("father", "brother")],
    "grandmother": [("mother", "mother"), ("father", "mother")],
    "grandfather": [("mother", "father"), ("father", "father")],
    "舅舅": [("母亲", "哥哥")], "姨妈": [("母亲", "姐姐")], "姑姑": [("父亲", "姐姐")], "外婆": [("母亲", "母亲")],
    "外公": [("母亲", "父亲")], "奶奶": [("父亲", "母亲")], "爷爷": [("父亲", "父亲")],
}  # fmt: skip


def _facts(story: str) -> list[tuple[str, str, str]]:
    found = re.findall(r"(\w+)'s (\w+) is (\w+)\.", story) or re.findall(r"(\w\w)的(\w\w)是(\w\w)。", story)
    assert len(found) >= 5
    return found


def _follow(story: str, subject: str, paths: Iterable[tuple[str, str]]) -> Iterator[tuple[str, ...]]:
    facts = _facts(story)
    for first, second in paths:
        for middle in (other for person, relation, other in facts if (person, relation) == (subject, first)):
            for person, relation, other in facts:
                if (person, relation) == (middle, second):
                    yield (other.lower(),)


def _kinship(rule: str, question: str) -> Iterator[tuple[str, ...]]:
    if rule.startswith("规则"):
        word, first, second = _found(r"“(\w+)”就是这个人的(\w\w)的(\w\w)。", rule)
        (subject,) = _found(rf"(\w\w)的“{word}”是谁", question)
    else:
        word, second, first = _found(r"person's (\w+) is the (\w+) of that person's (\w+)\.", rule)
        (subject,) = _found(rf"Who is (\w+)'s {word}\?", question)
    yield from _follow(question, subject, [(first, second)])


def _relative(control: str) -> Iterator[tuple[str, ...]]:
    subject, word = _found(
        r"(?:Who is (?=\w+'s \w+\?)|(?<=。)(?=\w\w的\w\w是谁))(\w+?)(?:'s |的)(\w+?)(?:\?|是谁)", control
    )
    yield from _follow(control, subject, RELATIVES[word])


def _rewriting(rule: str, question: str) -> Iterator[tuple[str, ...]]:
    text = _found(r"“(\w+)”变成什么|What does (\w+) become", question)
    start = text[0] or text[1]
    until = re.search(r"只要有“(\w+)”，就把它换成“(\w)”|wherever (\w+) stands, it is replaced by (\w)", rule)
    if until:
        old, new = (until[1], until[2]) if until[1] else (until[3], until[4])
        yield from ((end,) for end in _ends(start, old, new))
        return
    pairs = re.findall(r"每个“(\w)”变成“(\w+)”", rule) or re.findall(r"every (\w) becomes (\w+)", rule)
    yield (start.translate(str.maketrans(dict(pairs))),)


def _ends(text: str, old: str, new: str) -> set[str]:
    """Where rewriting can end, whichever place is taken first."""
    places = [match.start() for match in re.finditer(f"(?={old})", text)]
    if not places:
        return {text}
    return set().union(*(_ends(text[:place] + new + text[place + len(old) :], old, new) for place in places))


def _replacing(control: str) -> Iterator[tuple[str, ...]]:
    if control.startswith("把"):
        text, old, new = _found(r"把“(\w+)”里的每个“(\w)”换成“(\w)”", control)
    else:
        old, text, new = _found(r"Replace every (\w) in (\w+) by (\w)\.", control)
    yield ("".join(new if sign == old else sign for sign in text),)


def _morphology(rule: str, question: str) -> Iterator[tuple[str, ...]]:
    say = r"一个(\w+?)，两个(\w+)|今天我(\w+?)，昨天我(\w+)|One (\w+), two (\w+)|Today I (\w+), yesterday I (\w+)"
    shown, shown_form = [part for part in _found(say, rule) if part]
    asked = next(part for part in _found(say, question) if part)
    assert _form(rule, shown) == shown_form, "the example follows the rule"
    yield (_form(rule, asked),)


def _form(rule: str, word: str) -> str:
    told = rule.partition("。今天")[0].partition("。一个")[0].partition(". Today")[0].partition(". One")[0]
    if "重复一遍" in told:
        return f"{word[0]}{word}"
    if "doubling the vowel" in told:
        word = re.sub(r"([aeiou])", r"\1\1", word)
    if inside := re.search(r"第一个字后面加“(\w)”", told):
        return f"{word[0]}{inside[1]}{word[1:]}"
    if inside := re.search(r"inserting (\w+) before the last letter", told):
        return f"{word[:-1]}{inside[1]}{word[-1]}"
    before = re.search(r"前面加“(\w)”|putting (\w+) in front", told)
    behind = re.search(r"后面加“(\w)”|(?:adding|and) (\w+) at the end", told)
    assert before or behind, told
    return "".join([before[1] or before[2] if before else "", word, behind[1] or behind[2] if behind else ""])


def _known_form(control: str) -> Iterator[tuple[str, ...]]:
    if "两" in control or "昨天" in control or "很多" in control:
        shown, form, asked = _found(r"(?:是|我)(\w+)，(?:很多人是|昨天我)(\w+)。(?:一个人是|今天我)(\w+)，", control)
        yield (form.replace(shown, asked),)
    else:
        word = next(part for part in _found(r"One (\w+), two what|Today I (\w+), yesterday I what", control) if part)
        yield (word + ("s" if control.startswith("One") else "ed"),)


_READ = {
    "operator": _operator, "pairing": _pairing, "kinship": _kinship, "rewriting": _rewriting, "morphology": _morphology,
}  # fmt: skip
_CONTROL = {
    "operator": _sum, "pairing": _taking_away, "kinship": _relative, "rewriting": _replacing, "morphology": _known_form,
}  # fmt: skip
