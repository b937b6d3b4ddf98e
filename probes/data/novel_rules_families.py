"""The families of novel rules: each function draws one case, or None where the draw is no good (draw again).

A draw is good where its answer does not come out under the rule that everybody knows: reciting must be of no use.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

NUMBER = r"(?<!\d)-?\d+(?:\.\d+)?"
WORD = r"[a-z]+"
ONLY_NUMBER = {"zh": "只回答数字。", "en": "Answer with the number only."}
ONLY_NAME = {"zh": "只回答名字。", "en": "Answer with the name only."}
ONLY_WORD = {"zh": "只回答这个词。", "en": "Answer with one word."}
ONLY_RESULT = {"zh": "只回答结果。", "en": "Answer with the result only."}


@dataclass(frozen=True)
class Made:
    """A case before it has its id."""

    rule: str
    question: str
    key: tuple[str, ...]
    pattern: str
    """What in a reply counts as an answer; the last such pieces are compared with the key, in any order."""
    control: str
    control_key: tuple[str, ...]
    control_pattern: str
    meaning: str
    """The rule without its wording: what must be new."""


def operator(rng: random.Random, language: str) -> Made | None:
    """An invented operation on two numbers, once or twice over; the control adds."""
    symbol = rng.choice("◇◆△▽☆★⊛⊞")
    meant, apply = rng.choice(_operations(rng.randint(2, 5), rng.randint(2, 4), rng.choice([1, -1])))
    a, b, c = (rng.randint(2, 9) for _ in range(3))
    twice = rng.random() < 0.5
    written = f"({a} {{0}} {b}) {{0}} {c}" if twice else f"{a} {{0}} {b}"
    inner = apply(a, b)
    key, control_key = (apply(inner, c), a + b + c) if twice else (inner, a + b)
    if min(inner, key) < 0 or key > 300 or key in (control_key, a * b, a - b, b - a, a * b * c, a - b - c):
        return None
    rule = {"zh": f"规则：a {symbol} b = {meant}。", "en": f"Rule: a {symbol} b = {meant}. "}[language]
    ask = {"zh": "{} 等于多少？", "en": "What is {}? "}[language] + ONLY_NUMBER[language]
    question, control = ask.format(written.format(symbol)), ask.format(written.format("+"))
    return Made(rule, question, (str(key),), NUMBER, control, (str(control_key),), NUMBER, meant)


def _operations(p: int, q: int, sign: int) -> list[tuple[str, Callable[[int, int], int]]]:
    """Operations that have no name: how each is told, and how it is done."""
    s = "+" if sign > 0 else "−"
    return [
        (f"{p} × a {s} {q} × b", lambda a, b: p * a + sign * q * b),
        (f"a × b {s} {p}", lambda a, b: a * b + sign * p),
        (f"(a + b) × {q} {s} {p}", lambda a, b: (a + b) * q + sign * p),
        (f"a × a {s} {p} × b", lambda a, b: a * a + sign * p * b),
    ]


THINGS = [
    ("lantern", "lanterns", "盏", "灯笼"), ("bell", "bells", "个", "铃铛"), ("stone", "stones", "块", "石头"),
    ("boat", "boats", "条", "小船"), ("candle", "candles", "根", "蜡烛"), ("coin", "coins", "枚", "硬币"),
    ("button", "buttons", "颗", "纽扣"), ("leaf", "leaves", "片", "叶子"), ("feather", "feathers", "根", "羽毛"),
    ("book", "books", "本", "书"), ("key", "keys", "把", "钥匙"), ("cup", "cups", "只", "杯子"),
]  # fmt: skip


def pairing(rng: random.Random, language: str) -> Made | None:
    """Things that go with other things: taking one away does more than that; the control only takes away."""
    one, many, measure, thing = rng.choice(THINGS)
    kind, size, taken = rng.choice(["vanish", "same", "different", "mirror"]), rng.randint(2, 5), rng.randint(2, 4)
    if kind == "mirror":
        return _mirror(rng, language, many, measure, thing)
    if kind == "vanish":
        there = taken * (size + 1) + rng.randint(1, 9)
        left = there - taken * (size + 1)
        rule = {
            "zh": f"规则：每拿走一{measure}{thing}，就有另外{size}{measure}{thing}消失。",
            "en": f"Rule: whenever a {one} is taken away, {size} other {many} vanish. ",
        }
        which = {"zh": "", "en": ""}
    else:
        there = size * (taken + rng.randint(1, 4))
        left = there - size * (1 if kind == "same" else taken)
        rule = {
            "zh": f"规则：{thing}每{size}{measure}一组，拿走其中一{measure}，整组都会消失。",
            "en": f"Rule: the {many} stand in groups of {size}, and taking one away makes its whole group vanish. ",
        }
        same = {"zh": "都是同一组的，", "en": ", all of the same group"}
        which = same if kind == "same" else {"zh": "每一组只拿一" + measure + "，", "en": ", each of another group"}
        if size == 2 or (kind == "same" and taken > size):
            return None  # groups of two are the trees
    ask = {
        "zh": f"有{there}{measure}{thing}，拿走{taken}{measure}，{{}}还剩几{measure}？",
        "en": f"There are {there} {many} and {taken} are taken away{{}}. How many are left? ",
    }[language] + ONLY_NUMBER[language]
    if left == there - taken:
        return None
    meaning = f"{'vanish' if kind == 'vanish' else 'groups'} {size} {one}"
    question, control = ask.format(which[language]), ask.format("")
    return Made(rule[language], question, (str(left),), NUMBER, control, (str(there - taken),), NUMBER, meaning)


def _mirror(rng: random.Random, language: str, many: str, measure: str, thing: str) -> Made | None:
    """The first goes with the last, the second with the second to last; the control asks for neighbours."""
    last = rng.choice([10, 12, 14, 16, 18, 20])
    first, second = sorted(rng.sample(range(2, last), 2))
    key, beside = (str(last + 1 - first), str(last + 1 - second)), (str(first - 1), str(first + 1))
    if first + second == last + 1 or set(key) == set(beside):
        return None  # they are each other's partners, or both questions have one answer
    numbered = {"zh": f"{thing}从1到{last}编号", "en": f"the {many} are numbered 1 to {last}"}[language]
    rule = {
        "zh": f"规则：{numbered}，第一{measure}和最后一{measure}配对，第二{measure}和倒数第二{measure}配对，依此类推；"
        f"拿走一{measure}，和它配对的那{measure}就消失。",
        "en": f"Rule: {numbered}; the first is paired with the last, the second with the second to last, and so on; "
        "taking one away makes its partner vanish. ",
    }[language]
    question = {
        "zh": f"拿走{first}号和{second}号，哪两{measure}会消失？只回答两个号码。",
        "en": f"Numbers {first} and {second} are taken away. Which two vanish? Answer with the two numbers only.",
    }[language]
    control = {
        "zh": f"{numbered}。紧挨着{first}号的是哪两{measure}？只回答两个号码。",
        "en": f"{numbered[0].upper()}{numbered[1:]}. Which two are next to number {first}? "
        "Answer with the two numbers only.",
    }[language]
    return Made(rule, question, key, NUMBER, control, beside, NUMBER, f"mirror {last} {many}")


KIN = {"zh": ["母亲", "父亲", "姐姐", "哥哥"], "en": ["mother", "father", "sister", "brother"]}
ROLES = {
    "zh": ["老师", "医生", "上司", "律师", "房东", "裁缝", "厨师", "司机"],
    "en": ["teacher", "doctor", "boss", "lawyer", "landlord", "tailor", "cook", "driver"],
}
KNOWN = {
    "zh": {
        (0, 3): "舅舅", (0, 2): "姨妈", (1, 2): "姑姑",
        (0, 0): "外婆", (0, 1): "外公", (1, 0): "奶奶", (1, 1): "爷爷",
    },
    "en": {
        (0, 2): "aunt", (1, 2): "aunt", (0, 3): "uncle", (1, 3): "uncle",
        (0, 0): "grandmother", (1, 0): "grandmother", (0, 1): "grandfather", (1, 1): "grandfather",
    },
}  # fmt: skip
WOMEN = {
    "zh": ["秀英", "丽华", "玉兰", "桂芳", "淑珍", "晓燕", "美玲", "雪梅", "佳怡"],
    "en": ["Alice", "Clara", "Edith", "Helen", "Irene", "Laura", "Nora", "Rosa", "Wendy"],
}
MEN = {
    "zh": ["建国", "志强", "文军", "国栋", "俊杰", "海涛", "明辉", "振宇", "嘉诚"],
    "en": ["Bruno", "David", "Felix", "Gavin", "Henry", "Jacob", "Oscar", "Peter", "Victor"],
}


def kinship(rng: random.Random, language: str) -> Made | None:
    """A made-up word for a relation of a relation; the control asks for a relative whose name everybody knows."""
    relations = KIN[language] + ROLES[language]
    step, then = rng.sample(range(len(relations)), 2)
    if max(step, then) < len(KIN[language]):
        return None  # of kin alone, a word is known or an answer may follow in two ways
    women, men = rng.sample(WOMEN[language], 9), rng.sample(MEN[language], 9)
    facts: dict[tuple[str, int], str] = {}

    def related(person: str, relation: int) -> str:
        if (person, relation) not in facts:
            pool = (women, men)[relation % 2] if relation < len(KIN[language]) else rng.choice([women, men])
            facts[person, relation] = pool.pop()
        return facts[person, relation]

    subject, rival = women.pop(), men.pop()
    (known_step, known_then), known = rng.choice(list(KNOWN[language].items()))
    control_key = related(related(subject, known_step), known_then)
    key = related(related(subject, step), then)
    related(related(rival, step), then)
    told = [(person, relations[relation], other) for (person, relation), other in facts.items()]
    rng.shuffle(told)
    fact = {"zh": "{}的{}是{}。", "en": "{}'s {} is {}. "}[language]
    story = "".join(fact.format(*parts) for parts in told)
    word = nonce(rng, language)
    rule = {
        "zh": f"规则：一个人的“{word}”就是这个人的{relations[step]}的{relations[then]}。",
        "en": f"Rule: a person's {word} is the {relations[then]} of that person's {relations[step]}. ",
    }[language]
    ask = {"zh": f"{subject}的{{}}是谁？", "en": f"Who is {subject}'s {{}}? "}[language] + ONLY_NAME[language]
    names = "|".join(sorted({name.lower() for person, _, other in told for name in (person, other)}))
    pattern = f"(?<![a-z])(?:{names})(?![a-z])" if language == "en" else names
    asked = f"“{word}”" if language == "zh" else word
    return Made(
        rule, story + ask.format(asked), (key.lower(),), pattern,
        story + ask.format(known), (control_key.lower(),), pattern, f"{step} {then}",
    )  # fmt: skip


def rewriting(rng: random.Random, language: str) -> Made | None:
    """Signs that become other signs, all at once or until nothing changes; the control replaces one sign."""
    x, y, z = rng.sample("山水火木石田日月云" if language == "zh" else "bdfgklmprtvz", 3)
    text = "".join(rng.choice([x, y, z]) for _ in range(rng.randint(4, 6)))
    new, other = rng.choice([y + y, z + x, z + y, x + z]), rng.choice([x, x + x, z + z])
    kind = rng.choice(["each", "both", "until"])
    quoted = (lambda sign: f"“{sign}”") if language == "zh" else str
    if kind == "until":
        result, target = text, rng.choice([x, z])
        while x + y in result:
            result = result.replace(x + y, target, 1)
        rule = {
            "zh": f"规则：只要有{quoted(x + y)}，就把它换成{quoted(target)}，一直换到没有{quoted(x + y)}为止。",
            "en": f"Rule: wherever {x}{y} stands, it is replaced by {target}, again and again until none is left. ",
        }
    else:
        become = {x: new} if kind == "each" else {x: new, y: other}
        result = "".join(become.get(sign, sign) for sign in text)
        each_zh = "，".join(f"每个{quoted(old)}变成{quoted(to)}" for old, to in become.items())
        each_en = " and ".join(f"every {old} becomes {to}" for old, to in become.items())
        at_once = {"zh": "，同时进行", "en": ", all at the same moment"}[language] if kind == "both" else ""
        rule = {
            "zh": f"规则：{each_zh}{at_once}，其余不变。",
            "en": f"Rule: {each_en}{at_once}; nothing else changes. ",
        }
    known = text.replace(x, y)
    if len({result, text, known}) < 3 or len(result) > 12:
        return None
    pattern = f"[{x}{y}{z}]+" if language == "zh" else f"(?<![a-z])[{x}{y}{z}]+(?![a-z])"
    question = {"zh": f"“{text}”变成什么？", "en": f"What does {text} become? "}[language] + ONLY_RESULT[language]
    control = {
        "zh": f"把“{text}”里的每个“{x}”换成“{y}”，变成什么？",
        "en": f"Replace every {x} in {text} by {y}. What does it become? ",
    }[language] + ONLY_RESULT[language]
    return Made(rule[language], question, (result,), pattern, control, (known,), pattern, rule[language])


NOUNS = {
    "zh": ["同学", "朋友", "医生", "工人", "农民", "司机", "邻居", "客人", "护士", "作家"],
    "en": ["cat", "dog", "book", "tree", "river", "table", "garden", "cow", "window", "farmer"],
}
VERBS = {
    "zh": ["走", "看", "听", "问", "写", "读", "笑", "哭", "睡", "跑"],
    "en": ["walk", "jump", "play", "look", "talk", "call", "open", "clean", "cook", "help"],
}
AFFIXES = {"zh": "洛巴吉哈扎阿隆", "en": ["ax", "oon", "iv", "ub", "esk", "olo", "ith", "unk", "arg", "em"]}


def morphology(rng: random.Random, language: str) -> Made | None:
    """Forms of made-up words (Berko 1958); the control asks for the form of a word that everybody knows."""
    affix, second = rng.sample(list(AFFIXES[language]), 2)
    how, form = rng.choice(_processes(language, affix, second))
    shown, asked = nonce(rng, language), nonce(rng, language)
    plural = rng.random() < 0.5
    if language == "zh":
        means = "表示多个事物" if plural else "表示过去做的事"
        say = "一个{}，两个{}" if plural else "今天我{}，昨天我{}"
        rule = f"规则：在这种语言里，{means}要{how}。{say.format(shown, form(shown))}。"
        known, end = (rng.choice(NOUNS["zh"]), "们") if plural else (rng.choice(VERBS["zh"]), "了")
        known_say = "一个人是{}，很多人是{}" if plural else say
        example = known_say.format("老师", "老师们") if plural else known_say.format("吃", "吃了")
        control = f"{example}。{known_say.format(known, '什么')}？"
        pattern, control_pattern = f"[{''.join(sorted({*asked, affix, second}))}]+", f"{known}{end}?"
    else:
        say = "One {}, two {}" if plural else "Today I {}, yesterday I {}"
        means = "the plural of a noun" if plural else "the past of a verb"
        rule = f"Rule: in this language {means} is made by {how}. {say.format(shown, form(shown))}. "
        known, end = (rng.choice(NOUNS["en"]), "s") if plural else (rng.choice(VERBS["en"]), "ed")
        control = f"{say.format(known, 'what')}? "
        pattern = control_pattern = WORD
    if shown == asked or form(asked) in (asked, asked + "s", asked + "ed"):
        return None
    last = ONLY_WORD[language]
    question = say.format(asked, {"zh": "什么", "en": "what"}[language]) + {"zh": "？", "en": "? "}[language] + last
    key, control_key, meaning = (form(asked),), (known + end,), f"{language} {plural} {how}"
    return Made(rule, question, key, pattern, control + last, control_key, control_pattern, meaning)


def _processes(language: str, affix: str, second: str) -> list[tuple[str, Callable[[str], str]]]:
    """Ways to make a form: how it is told, and how it is done."""
    if language == "zh":
        return [
            (f"在词的后面加“{affix}”", lambda word: word + affix),
            (f"在词的前面加“{affix}”", lambda word: affix + word),
            (f"在词的前面加“{affix}”，后面加“{second}”", lambda word: affix + word + second),
            ("把词的第一个字重复一遍", lambda word: word[0] + word),
            (f"在词的第一个字后面加“{affix}”", lambda word: word[0] + affix + word[1:]),
        ]
    return [
        (f"adding {affix} at the end", lambda word: word + affix),
        (f"putting {affix} in front", lambda word: affix + word),
        (f"putting {affix} in front and {second} at the end", lambda word: affix + word + second),
        (f"inserting {affix} before the last letter", lambda word: word[:-1] + affix + word[-1]),
        (f"doubling the vowel and adding {affix} at the end", lambda word: _vowel_twice(word) + affix),
    ]


def _vowel_twice(word: str) -> str:
    return "".join(letter * 2 if letter in "aeiou" else letter for letter in word)


def nonce(rng: random.Random, language: str) -> str:
    """A word that no dictionary has."""
    if language == "zh":
        return "".join(rng.sample("莫努塞维菲戈玛提贝", 2))
    onset = rng.choice(["vl", "vr", "zw", "gw", "kv", "zl", "fn", "shl", "skl"])
    return onset + rng.choice("aeiou") + rng.choice(["b", "lb", "mp", "rv", "v", "zz", "lk", "nth", "g", "rf"])


FAMILIES = {
    "operator": operator, "pairing": pairing, "kinship": kinship, "rewriting": rewriting, "morphology": morphology,
}  # fmt: skip
