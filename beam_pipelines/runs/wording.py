"""Messages of a job in the words of another one that runs it as a stage: flags that this one lacks get their remedy."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from schemas.errors import CappyError

_LOG = logging.getLogger("cappy")


def reword(text: str, words: Mapping[str, str]) -> str:
    """Replace each pattern of `words`, a regular expression, by its template in a message, in their order."""
    for pattern, replacement in words.items():
        text = re.sub(pattern, replacement, text)
    return text


def literal(text: str) -> str:
    """Return the template (see `re.sub`) that gives a text as it is."""
    return text.replace("\\", r"\\")


@contextmanager
def reworded(words: Mapping[str, str]) -> Iterator[None]:
    """Reword the errors and the log messages of the block."""

    def reword_record(record: logging.LogRecord) -> bool:
        record.msg, record.args = reword(record.getMessage(), words), ()
        return True

    _LOG.addFilter(reword_record)
    try:
        yield
    except CappyError as error:
        error.args = (reword(str(error), words), *error.args[1:])
        raise
    finally:
        _LOG.removeFilter(reword_record)
