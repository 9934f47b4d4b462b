"""Absence detection: tells "there is none" in words from an answer in an unreadable form.

Either mistake costs: absence taken for a failure stops a batch, and a failure taken for absence
is a wrong answer that nobody notices. So an answer counts as "none" only if one of its clauses is
a denial and no other asserts what was asked for. English and Chinese, the languages in which Qwen
models answer when they leave the requested form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Longer texts describe something.
_MAX_LENGTH = 600

# Exceptions from a denial: "no cats except the one on the sofa".
_EXCEPT = r"(?:except|besides|apart from|aside from|other than|save for)"
_BUT = rf"(?:but|however|although|{_EXCEPT})"
_FENCE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE)
_CLAUSE = re.compile(rf"[.!?,。！？；;，\n]+|\b(?={_BUT}\b)|(?=但|然而|不过|除了)", re.IGNORECASE)
_CONTRAST = re.compile(rf"(?:{_BUT}|only)\b|但|然而|不过|只有|除了", re.IGNORECASE)
# Locates what was denied before: "no cat on the left; it is on the right".
_STILL_THERE = re.compile(
    r"\b(?:all|both|one|two|three|several|some|many)(?: of them)? (?:is|are|in|on|at)\b|"
    r"\b(?:the|that|this|an?|there is|there's) (?:\w+ )?ones?\b"
    r"|\b(?:it|they)(?:'s|'re| is| are| can be| sits?| stands?| lies?| appears?)"
    r"(?: (?:partly|partially|just|only|hidden|located|visible|seen|sitting|standing|lying))? "
    r"(?:on|at|behind|under|beneath|below|above|near|next|beside|inside|between|in the|to the)\b"
    r"|它们?在",
    re.IGNORECASE,
)
# Counts something: "I found one cat".
_COUNTS = re.compile(
    r"\b(?:one|two|three|four|five|six|several|many|(?<![.\d])[1-9]\d*) \w"
    r"|[一两二三四五六七八九几][只个条张]",
    re.IGNORECASE,
)
# Numbers in brackets or tags are unreadable coordinates; a count of zero is not.
_NUMBERS = re.compile(r"[\[({<](?!\s*0(?:\s*[^\W\d_][^\d\])}>]*)?[\])}>])[^\])}>]*\d")
# A clause without a verb continues a list ("no cats, dogs, or birds") and asserts nothing.
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|shows?|contains?|includes?|depicts?|features?|sees?|sits?"
    r"|sitting|stands?|standing|lies|lying|appears?|located|found)\b|there's|it's|是|有|在|位于",
    re.IGNORECASE,
)

# Denials of something else: a refusal, a missing picture, a phrase.
_SOMETHING_ELSE = re.compile(
    r"\bno (?:doubt|problem|worries|idea|image|picture|photo|answer|information|response)\b"
    r"|\b(?:see|view|access|open|load|process|analy[sz]e|read|receive) "
    r"(?:(?:the|this|that|your|any|an) )?(?:image|picture|photo|video)s?\b(?! of)"
    r"|\bnothing (?:but|wrong)\b|\bnot (?:only|sure|clear)\b|\b(?:assist|help|comply)\b"
    r"|\b(?:no|0) (?:parking|entry|smoking|stopping|exit|trespassing) sign"
    r"|没有(?:图片|图像|照片)"
    r"|没有(?:问题|收到|看到图|上传|提供)|无法(?:识别|处理|查看|访问|打开|看到|加载)(?:这|该|此)?张?图"
    r"|无法(?:提供|回答|帮助|协助)",
    re.IGNORECASE,
)
_FOUND = r"(?:found|find|present|visible|detected|identified|located|shown|seen|depicted|included)"
_SCENE = r"(?:image|picture|photo|scene|frame|view|document|page|video)"
# A line of one word, perhaps after a name: "dog: none".
_BARE = re.compile(
    r"(?:[^\n:：]{1,60}[:：]\s*)?(?:none|nothing|nil|null|n/?a|empty|absent|zero|no|无|空|没)"
    r"[.!。！]*",
    re.IGNORECASE,
)
# Denies further ones, or that it is completely visible: it is there.
_PARTIAL = re.compile(
    r"\bno (?:other|more|further|additional)\b|\b(?:in full|in (?:its|their) entirety)\b"
    r"|\bno (?:fewer|less|more) than\b|\bno longer (?:on|in|at|under|behind)\b|\bno \d"
    r"|没有(?:被|完整|遮挡|完全|尾|头|动)"
    r"|\bno (?:clear|full|complete|good|direct|unobstructed) (?:view|sight|picture|image)\b"
    r"|(?:\bnot|n't) (?:\w+ )?(?:fully|entirely|completely|wholly|clearly|quite)\b"
    r"|没有(?:其他|别的)",
    re.IGNORECASE,
)
# A heading before an answer: "Result: no cats", "Final answer: none".
_HEADING = re.compile(
    r"(?:the )?(?:final |detection |detected )?(?:results?|answer|output|response|detections?"
    r"|conclusion|objects?|boxes)(?: is| are)?\W*[:：]\W*"
    r"|(?:检测|最终)?(?:结果|答案|输出)\W*[:：]\W*",
    re.IGNORECASE,
)
_COUNTED = rf"(?:{_FOUND}|match(?:es)?|results?|instances?|objects?|items?|boxes)"
_ZERO = (
    rf"(?<![.\d])\b(?:0|zero)(?![.\d]) (?:[\w'-]+ ){{0,3}}{_COUNTED}\b"
    r"|\b(?:found|detected|identified|located|see|count(?:ed)?|total(?: of)?|are)[:：]? (?:0|zero)"
    r"(?: [\w'-]+){0,4}$"
    r"|\bnumber of [\w' -]{1,40}[:：]? (?:is )?(?:0|zero)$"
    r"|(?:有|共|找到|发现|检测到|识别到|数量)(?:为|了|到)?[:：]?\s*(?:0|零)\s*[个只张处条]|^(?:0|零)[个只张处条]"
)
_DENIAL = re.compile(
    rf"{_ZERO}|"
    r"^(?:none|nothing)\b(?! of)|\bneither\b.*\bnor\b"
    r"|\bnone of\b.*\b(?:are|is|were|was|appear|exist)\b"
    rf"|\b(?:not|n't|never) (?:\w+ )?(?:be )?{_FOUND}\b"
    r"|\b(?:is|are|was|were|be|seems?|seem to be|appear to be) (?:none|absent|not there)\b"
    r"|\bthere(?:'s| is| are|(?: do(?:es)? not)? (?:appear|seem)s? to be) (?:no|not|n't|none)\b"
    r"|\bthere (?:isn't|aren't|wasn't|weren't)\b|\bno longer\b"
    rf"|\b(?:is|are)(?: not|n't) (?:\w+ )?(?:in|on) (?:the|this) {_SCENE}\b"
    rf"|^(?:and |or )?no\b.*\b(?:{_FOUND}|exists?|appears?|(?:in|on) (?:the|this) {_SCENE})\b"
    r"|^no(?: [\w'\"/-]+){1,5}$"
    r"|\b(?:do|does|did)(?: not|n't) (?:contain|include|show|appear|exist|depict|feature|occur"
    r"|happen|take place)\b"
    r"|\b(?:i|we) (?:do|did)(?: not|n't) (?:see|find|detect|spot|notice)\b"
    rf"|\b{_SCENE} (?:does(?: not|n't) have|has no|contains no|shows no)\b"
    r"|\b(?:i|we) (?:can )?(?:see|find|found|detect|detected) no\b"
    r"|\b(?:cannot|can not|can't|could not|couldn't|unable to|not able to|failed to) "
    r"(?:find|see|locate|detect|spot|identify any)\b"
    r"|没有|未(?:能)?(?:找到|发现|检测到|看到|见|出现|识别到)|不存在|找不到|看不到|不包含|不含"
    r"|没找到|没看到|没发现|^无(?:相关|此类|该|符合|任何|目标|结果)",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:the|a|an|any|all|every|each|this|that)\s+", re.IGNORECASE)


def says_none(text: str, names: Sequence[str] = ()) -> bool:
    """Whether ``text`` says, in words, that what was asked for is not in the picture.

    ``names``: what was looked for. If given, a clause that mentions one of them and denies nothing
    rules absence out ("There are no cats. The dog is on the left." when both were asked for). If
    not, nothing may be asserted before the denial, nor after it with "but".
    """
    if len(text) > 2 * _MAX_LENGTH:
        return False
    text = _FENCE.sub("", text).strip().replace("’", "'")
    if not text or len(text) > _MAX_LENGTH:
        return False
    if _SOMETHING_ELSE.search(text) or _NUMBERS.search(text):
        return False
    lines = _trimmed(text.split("\n"))
    if lines and all(map(_BARE.fullmatch, lines)):
        return True
    clauses = _trimmed(_CLAUSE.split(text))
    denials = [index for index, clause in enumerate(clauses) if _denies(clause)]
    asserting = [
        index
        for index, clause in enumerate(clauses)
        if index not in denials
        and (_VERB.search(clause) or _CONTRAST.match(clause) or _COUNTS.search(clause))
    ]
    if not denials or any(_STILL_THERE.search(clauses[index]) for index in asserting):
        return False
    if names:
        return not any(_mentions(clauses[index], name) for index in asserting for name in names)
    return not any(
        index < denials[0] or _CONTRAST.match(clauses[index]) or _COUNTS.search(clauses[index])
        for index in asserting
    )


def _trimmed(parts: Sequence[str]) -> list[str]:
    return [part for text in parts if (part := text.strip(" \t、:：*_`\"'()[]{}<>-•"))]


def _denies(clause: str) -> bool:
    heading = _HEADING.match(clause)
    statement = clause[heading.end() :] if heading else clause
    denies = _DENIAL.search(statement) or (heading and _BARE.fullmatch(statement))
    return bool(denies) and _PARTIAL.search(clause) is None


def _mentions(clause: str, name: str) -> bool:
    """Whether a clause mentions ``name``, in singular or plural."""
    stem = _ARTICLE.sub("", name.strip()).lower().removesuffix("s")
    return bool(stem) and re.search(rf"(?<![a-z]){re.escape(stem)}", clause.lower()) is not None
