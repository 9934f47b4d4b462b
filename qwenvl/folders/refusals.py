"""Refusal detection: replies that say that there will be no caption, in English and Chinese.

Either mistake costs: a refusal that is taken for a caption trains a model on "I'm sorry", and a
caption taken for a refusal is missing. So a refusal is only what begins as one: the writer speaks
of himself, or of a request, before anything is described. A caption may hold all of these words,
as those of a sign or of somebody in the picture.
"""

from __future__ import annotations

import re

_SORRY = (
    r"(?:(?:i'm|i am|we're|we are) (?:\w+ )?(?:sorry|afraid)|sorry|unfortunately|regrettably"
    r"|(?:i |we |my |please accept my |i offer my )?(?:sincere(?:st)? )?apolog(?:ies|i[sz]e))"
    r"[ ,.;:!–—-]*(?:(?:but|that|however)[ ,]+)?(?:for [^,.!]{1,40}[,.!] )?"
)
_AS_AI = (
    r"as an? (?:\w+ ){0,3}?(?:ai|artificial intelligence|language model|assistant)\b"
    r"(?: (?:language )?(?:model|assistant|system)\b)?"
    r"(?: (?:developed|created|trained|made|built|designed) (?:by|to|for) [^,.!?]{1,40})?"
)
_NOT_ABLE = (
    r"(?:i|we)(?: (?:\w+ )?|(?='))(?:cannot|can't|can not|couldn't|could not|won't|will not"
    r"|must decline|have to decline|decline|refuse|don't feel comfortable|do not feel comfortable"
    r"|don't have the ability|do not have the ability"
    r"|(?:am|are|'m|'re) (?:\w+ )?(?:not able|unable|not allowed|not permitted|not comfortable))\b"
)
_DEED = (
    r"(?: to)?(?: \w+){0,2}? (?:assist\b|comply|help(?= (?:you|with|to|in)\b|[.,;!]|$)"
    r"|fulfil+|provid|describ|caption|generat|creat"
    r"|process|analy[sz]|identif|view|see (?:the|this|that|your|any|images|pictures)|access|engag"
    r"|continue|discuss|write|answer|support|tag|produce|do (?:that|this)|look at|respond"
    r"|interpret|open (?:the|this|that|your))"
)
_THIS = r"(?:this|the|your) (?:\w+ )?(?:image|picture|photo|video|request|content|prompt)\b"
_NOW_NOT = (
    r"i (?:(?:must|have to|need to|will|shall) )?(?:respectfully|politely|kindly)"
    r" (?:decline|refuse)\b"
    r"|i (?:must|have to|need to) (?:decline|refuse)(?=[.,;!]|$)"
    r"|i(?:'m| am) not going to (?:describe|caption|provide|assist|help|generate|identify|engage"
    r"|comment)"
)
_UNFIT = (
    r"(?:explicit|inappropriate|sensitive|graphic|sexual|sexually|adult|mature|violent|harmful"
    r"|offensive|disturbing|unsafe|nsfw|prohibited|nude|nudity|pornographic)"
)
_HOLDS = r"(?: \w+){0,2}? (?:contain|include|depict|feature|show|ha[sv]e?)s?"
_AGAINST = (
    rf"(?:{_HOLDS} (?:\w+ ){{0,3}}?(?:content|material|imagery|nudity)(?: that| which))?"
    r"(?: (?:may|might|could|likely|clearly|seems to|appears to|also))*"
    r" (?:violates?|goes? against|is against(?= my| our| the| \w+ polic))\b[^.!?\"]{0,40}?"
    r"(?:\w+ polic(?:y|ies)|my guidelines|our guidelines|usage guidelines|terms of)"
)
_THEREFORE = (
    rf"{_HOLDS}[^.!?\"]{{0,30}}? {_UNFIT}\b[^.!?\"]{{0,40}}?(?:[,;.] ?| )"
    rf"(?:(?:and|so|but|that|which|therefore|thus),? ){{0,2}}{_NOT_ABLE}"
)
_PICTURE = r"(?:image|picture|photo|video)s?\b"
_NOT_SEEN = (
    r"i (?:don't|do not|can't|cannot|can not) (?:\w+ )?(?:see|find|have access to)"
    rf" (?:an?|any|the|your|that) (?:\w+ )?{_PICTURE}(?! (?:of|with|in|on|for)\b)"
    rf"|there (?:doesn't|does not) (?:seem|appear) to be (?:an?|any) (?:\w+ )?{_PICTURE}"
)
_SHOWN = r"(?:attached|provided|uploaded|included|shared|given)"
_NONE_SHOWN = (
    r"(?:(?:it )?(?:looks|seems|appears)(?: like| that| as if| as though)? )?"
    r"(?:(?:there (?:is|was) )?no (?:image|picture|photo|video)s? "
    rf"(?:(?:was|were|is|has been|have been) )?{_SHOWN}\b"
    r"|you (?:haven't|have not|did not|didn't|forgot to) (?:\w+ )?"
    r"(?:attach|upload|provide|share|include))"
)
_ASKS = (
    r"(?:please|could you|can you)(?: please)? (?:upload|attach|provide|share|send) "
    r"(?:an?|the|your|me) (?:\w+ )?(?:image|picture|photo|video)\b"
)
_ENGLISH = re.compile(
    rf"(?:{_SORRY})?(?:{_AS_AI}[ ,]*)?{_NOT_ABLE}{_DEED}"
    rf"|{_SORRY}(?:{_AS_AI}[ ,]*)?{_NOT_ABLE}"
    rf"|{_SORRY}{_THIS} (?:is|was|cannot|can't|isn't)\b"
    rf"|{_AS_AI},? i\b"
    rf"|(?:{_SORRY})?(?:{_AS_AI}[ ,]*)?(?:{_NOW_NOT}|{_NOT_SEEN})"
    rf"|(?:{_SORRY})?{_THIS}(?:{_AGAINST}|{_THEREFORE})"
    rf"|(?:{_SORRY})?{_NONE_SHOWN}"
    rf"|(?:{_SORRY})?{_ASKS}",
    re.IGNORECASE,
)
_SHOWN_ZH = (
    r"(?:(?:这|這|该|該|您的|你的)(?:张|張|个|個|段)?"
    r"(?:图片|圖片|图像|圖像|照片|视频|視頻|请求|請求|内容|內容))"
)
_CHINESE = re.compile(
    r"(?:(?:非常|很|十分|真的)?(?:抱歉|对不起|對不起|不好意思|遗憾|遺憾)[,，。.!！:：\s]*"
    r"(?:但是?|可是)?(?:作为|作為)?[^,，。.!！]{0,12}?[,，]?\s*(?:我|本|您|你|这|這|该|該|无法|無法|不能)"
    r"[^。.!！]{0,30}?(?:无法|無法|不能|没有|沒有|不会|不會|不可以|不便|违反|違反|拒绝|拒絕)"
    r"|(?:非常|很|十分)?(?:抱歉|对不起|對不起)[,，。.!！:：\s]*(?:无法|無法|不能)"
    r"|我(?:无法|無法|不能|没办法|沒辦法|没法|拒绝|拒絕)[^。.!！]{0,12}?"
    r"(?:提供|描述|回答|帮助|幫助|协助|協助|生成|处理|處理|查看|看到|识别|識別|满足|滿足|完成|分析|讨论)"
    r"|(?:作为|作為)(?:一个|一個|一名|一款)?[^,，。]{0,10}?"
    r"(?:AI|人工智能|人工智慧|语言模型|語言模型|大模型|助手)[^,，。]{0,8}?[,，]?\s*我[^。.!！]{0,12}?"
    r"(?:无法|無法|不能|没有|沒有|不会|不會|不具|不可|不便|拒绝|拒絕|没办法|沒辦法)"
    rf"|{_SHOWN_ZH}(?:的|中的|里的|所含的?|包含的?)?(?:内容|內容)?"
    r"(?:可能|似乎|明显|明顯|已经|已經|已|涉嫌|或许|或許)*(?:违反|違反)"
    rf"|(?:由于|由於|因为|因為)?{_SHOWN_ZH}?(?:的|中的)?(?:内容|內容)?(?:可能|似乎)?"
    r"(?:包含|含有|涉及|存在|属于|屬於|涉嫌)(?:了)?[^。.!！]{0,12}?"
    r"(?:不适|不適|敏感|色情|暴力|露骨|裸露|成人|违规|違規|不当|不當|不雅|低俗)[^。.!！]{0,12}?"
    r"[,，]\s*(?:因此|所以|故|因而)?[,，]?\s*我?们?(?:无法|無法|不能|不便|不予|不可以)[^。.!！]{0,8}?"
    r"(?:描述|提供|回答|生成|处理|處理|展示|分析|协助|協助|显示|顯示)"
    r"|(?:请|請)(?:您)?(?:先)?(?:上传|上傳|提供)(?:一张|一張|您的|图片|圖片)"
    r")",
    re.IGNORECASE,
)
_OPENING = re.compile(r"^[\s\"'“”‘«*_>#-]*(?:(?:oh|well|hmm|hello|hi)\b[\s,.!]*)?")
_APOSTROPHES = str.maketrans("’‘ʼ＇", "''''")


def is_refusal(reply: str) -> bool:
    """Whether ``reply`` refuses, instead of captioning."""
    text = " ".join(reply[:600].translate(_APOSTROPHES).split())
    opening = _OPENING.match(text)
    text = text[opening.end() :] if opening else text
    return bool(_ENGLISH.match(text) or _CHINESE.match(text))
