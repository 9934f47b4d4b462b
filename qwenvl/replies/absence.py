"""Tells "there is none" in words from an answer that fails to say where things are.

Both mistakes cost: absence taken for a failure stops a batch, and a failure taken for absence is
a wrong answer that nobody sees. So an answer counts as "none" only if a clause of it denies, and
nothing else in it asserts what was asked for. English and Chinese, the languages that Qwen models
answer in when they leave the form they were asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Longer texts tell of something.
_MAX_LENGTH = 600

_CLAUSE = re.compile(
    r"[.!?。！？；;\n]+|\b(?=but\b|however\b|although\b|except\b|only\b)|(?=但|然而|不过)"
)
_CONTRAST = re.compile(r"but\b|however\b|although\b|except\b|only\b|但|然而|不过", re.IGNORECASE)

_NOT_DENIAL = re.compile(
    r"\bno (?:doubt|problem|worries|idea|image|picture|photo|answer|information|response)\b"
    r"|\b(?:see|view|access|open|load|process|analy[sz]e|read|receive) "
    r"(?:(?:the|this|that|your|any|an) )?(?:image|picture|photo|video)s?\b(?! of)"
    r"|\bnothing (?:but|wrong)\b|\bnot (?:only|sure|clear)\b|\b(?:assist|help|comply)\b"
    r"|没有(?:问题|收到|看到图|上传|提供)|无法(?:识别|处理|查看|访问|打开|看到|加载)(?:这|该|此)?张?图"
    r"|无法(?:提供|回答|帮助|协助)",
    re.IGNORECASE,
)
_FOUND = r"(?:found|find|present|visible|detected|identified|located|shown|seen|depicted|included)"
_SCENE = r"(?:image|picture|photo|scene|frame|view|document|page|video)"
_DENIAL = re.compile(
    r"^(?:none|nothing|nil|null|n/?a|empty|absent|zero|0|no)$"
    r"|^(?:none|nothing)\b(?! of)|\bnone of\b.*\b(?:are|is|were|was|appear|exist)\b"
    rf"|\bnot (?:\w+ )?(?:be )?{_FOUND}\b|\bn't (?:be )?{_FOUND}\b"
    r"|\b(?:is|are|was|were|be|seem to be|appear to be) (?:no|not any|none|absent|not there)\b"
    r"|\bthere(?:'s| is| are) (?:no|not|n't)\b|\bthere (?:isn't|aren't|wasn't|weren't)\b"
    rf"|\b(?:is|are)(?: not|n't) (?:\w+ )?(?:in|on) (?:the|this) {_SCENE}\b"
    rf"|\bno\b.*\b(?:{_FOUND}|exists?|appears?|(?:in|on) (?:the|this) {_SCENE})\b"
    r"|^no(?: [\w'\"/-]+){1,5}$"
    r"|\b(?:do|does|did)(?: not|n't) (?:contain|include|show|have|see|find|appear|exist|depict"
    r"|feature|detect|spot|notice)\b"
    r"|\b(?:see|sees|find|found|contains?|shows?|has|have|detect|detected) no\b"
    r"|\b(?:cannot|can not|can't|could not|couldn't|unable to|not able to|failed to) "
    r"(?:find|see|locate|detect|spot|identify any)\b"
    r"|没有|未(?:能)?(?:找到|发现|检测到|看到|见|出现|识别到)|不存在|找不到|看不到|不包含|不含|没找到|没看到|没发现"
    r"|^(?:无|空|没)$|^无(?:相关|此类|该|符合|任何|目标|结果)",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:the|a|an|any|all|every|each|this|that)\s+", re.IGNORECASE)


def says_none(text: str, asked: Sequence[str] = ()) -> bool:
    """Whether ``text`` says, in words, that what was asked for is not in the picture.

    ``asked``: the names that were looked for. With them, a clause that mentions one and denies
    nothing makes it no absence ("There are no cats. The dog is on the left." when both were asked
    for). Without them, the first clause must deny, and nothing may be set against it with "but".
    """
    text = text.strip().replace("’", "'")
    if not text or len(text) > _MAX_LENGTH or _NOT_DENIAL.search(text):
        return False
    clauses = [clause.strip(" \t,，、:：*_`\"'()[]{}<>") for clause in _CLAUSE.split(text)]
    clauses = [clause for clause in clauses if clause]
    asserting = [clause for clause in clauses if not _DENIAL.search(clause)]
    if not clauses or len(asserting) == len(clauses):
        return False
    if asked:
        return not any(_mentions(clause, name) for clause in asserting for name in asked)
    return clauses[0] not in asserting and not any(map(_CONTRAST.match, asserting))


def _mentions(clause: str, name: str) -> bool:
    """Whether a clause speaks of ``name``, in the singular or the plural."""
    stem = _ARTICLE.sub("", name.strip()).lower().removesuffix("s")
    return bool(stem) and re.search(rf"(?<![a-z]){re.escape(stem)}", clause.lower()) is not None
