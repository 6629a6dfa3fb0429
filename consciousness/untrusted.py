"""Text that a model is to read as data and not to obey: notes, documents, whatever was found.

It stands between delimiters inside the user's turn. llama.cpp parses control tokens inside message
content too, whatever the model, so nothing in such text may end the delimiter, open another role
or be a control token. What could is taken apart by a space or quoted; people still read the same.
"""

from __future__ import annotations

import re

DELIMITER = '"""'

# Every kind of line end that something between here and the model may take for one.
_LINE_END = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Controls; what turns or hides text; and the invisible letters of U+E0000, which models read and
# people do not. First, because without them the pieces of a token could be a token.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\U000e0000-\U000e007f]"
)
# <|im_start|>, <start_of_turn>, <bos>, </s>, <<SYS>>, <tool_call>: each begins so.
_ANGLE = re.compile(r"<(?=\S)")
# [INST], [/INST], [gMASK], [|user|], [SYSTEM_PROMPT]; and MiniMax' ]~b] and [e~[.
_BRACKET = re.compile(r'\[(?=[^\s\[\]"]{1,64}\])|[\[\]](?=e?~)')
_HASHES = re.compile("#{2,}")  # ### Question, ###Human
_QUOTES = re.compile('"{3,}')
# A line that begins as a turn does: "User: …", "**System prompt:** …", "GPT4 Correct User: …".
_ROLE = re.compile(
    r"[ \t*_`~|(<\[-]*+"
    r"(?:[qa]|(?:\w{1,20}[ _-]){0,2}"
    r"(?:system|user|assistant|human|ai|bot|model|developer|tool|function|"
    r"instructions?|question|answer|prompt|input|output|response)"
    r"(?:[ _-]\w{1,20})?)"
    r"[ \t*_`~|)>\]]*+[:\uff1a]",
    flags=re.IGNORECASE,
)


def as_data(text: str) -> str:
    """`text` with its lines kept and its markup inert; done twice it is the same as done once.

    It grows to twice its length at most, but for two characters a line.
    """
    return "\n".join(_inert(line) for line in _LINE_END.split(text))


def as_one_line(text: str) -> str:
    """The same on one line, for a list of such texts."""
    return as_data(" ".join(text.split()))


def _inert(line: str) -> str:
    line = _INVISIBLE.sub("", line)
    line = _QUOTES.sub(lambda found: "'" * len(found[0]), line)
    line = _HASHES.sub(lambda found: " ".join(found[0]), line)
    line = _ANGLE.sub("< ", line)
    line = _BRACKET.sub(lambda found: f"{found[0]} ", line)
    return f"> {line}" if _ROLE.match(line) else line
