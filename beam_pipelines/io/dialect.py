"""Options of text files as users write them, in flags and in mixture files. Imports no pyarrow."""

import codecs


def parse_delimiter(text: str) -> str:
    """Return the separator of CSV fields that `text` names: a character, or `tab`. Raises ValueError."""
    if text in ("tab", "\\t"):
        return "\t"
    if len(text) != 1 or text in '"\r\n':
        raise ValueError(f"{text!r} is not a character that separates fields, such as ; or tab")
    return text


def parse_encoding(text: str) -> str | None:
    """Return Python's own name of a text encoding; None for UTF-8. Raises ValueError for any other text."""
    try:
        found = codecs.lookup(text)
        if found._is_text_encoding:  # Python has no public name for it
            return None if found.name in ("utf-8", "utf-8-sig") else found.name
    except LookupError:
        pass
    raise ValueError(f"{text!r} is not an encoding of text, such as utf-8, utf-16 or cp1252")
