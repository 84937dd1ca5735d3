"""Parameters that a server refuses: those that can be done without, and what to change for the others.

A concession keeps what is asked for: several choices are asked for one by one, a limit goes by its older name, a seed
is left out (samples are then not repeatable), and so are a temperature of 1 and a top_p of 1, which change nothing. To
drop any other parameter would change the samples, so its refusal is the prompt's failure, with a hint.
"""

import re
from collections.abc import Mapping
from typing import Any

import openai

from cappy_model.generate.decodings import CONCESSIONS, Decoding

_NEUTRAL = {"top_p": 1.0, "temperature": 1.0}
_OF_DECODING = ("temperature", "top_p", "top_k")
_HINTS = {
    "logprobs": "For a model without log-likelihoods: --no-log-likelihoods",
    "min_tokens": "min_tokens is sent for --min-new-tokens above 1",
    "stop": "stop is sent for --stop",
    "max_tokens": "max_tokens is --max-new-tokens",
    "max_completion_tokens": "max_completion_tokens is --max-new-tokens",
}


class Concessions:
    """The parameters that the server of an engine refuses or takes, as far as is known. For use on one event loop."""

    def __init__(self) -> None:
        self.made: set[str] = set()
        self._taken: set[str] = set()

    def undecided(self, request: Mapping[str, Any]) -> bool:
        """Return whether it is unknown if the server gives as many choices as `request` asks for."""
        return "n" in request and not {"n"} & (self.made | self._taken)

    def applied(self, request: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
        """Return a request without the parameters `names` and those conceded before, as far as it can do so."""
        names = names | self.made
        sent = {name: value for name, value in request.items() if not (name in names and _can_go(name, value))}
        if "max_completion_tokens" in request and "max_completion_tokens" not in sent:
            sent["max_tokens"] = request["max_completion_tokens"]
        return sent

    def next_after(self, refusal: str, request: Mapping[str, Any]) -> str | None:
        """Return the parameter of a refused request to concede next, None if there is none.

        It is one that the server's words name or, last, the number of choices, whatever the words. Parameters that the
        server has taken before are not the reason.
        """
        for name in CONCESSIONS:
            unproven = name in request and name not in self._taken and _can_go(name, request[name])
            if unproven and (name == "n" or _names(refusal, name)):
                return name
        return None

    def learn(self, request: Mapping[str, Any], conceded: set[str], choices: int) -> set[str]:
        """Record that a request was served with some `choices` after parameters were `conceded`; return the new ones.

        A server that gives one choice where several were asked for has refused them silently.
        """
        if self.undecided(request) and choices == 1:
            conceded = conceded | {"n"}
        new = conceded - self.made
        self.made |= conceded
        self._taken |= request.keys() - self.made
        return new


def refusal_words(error: openai.APIError) -> str:
    """Return a server's message, with the parameters that it names."""
    words: Any = error.body
    while isinstance(words, dict):
        words = words.get("message") or words.get("detail") or str(words)
    if isinstance(words, list) and all(isinstance(fault, dict) and "loc" in fault for fault in words):
        # FastAPI's form, whose `input` repeats the whole request.
        words = "; ".join(f"{fault['loc']}: {fault.get('msg')}" for fault in words)
    named = error.param if isinstance(error.param, str) and error.param not in str(words) else ""
    return f"{words or 'no reason given'}{f' ({named})' if named else ''}"


def hint(refusal: str, request: Mapping[str, Any], decoding: Decoding) -> str:
    """Return a sentence on what to change for a parameter that a refusal names; empty if it names none."""
    sent = {**request, **request.get("extra_body", {})}
    named = [name for name in (*_OF_DECODING, *_HINTS) if name in sent and _names(refusal, name)]
    if not named:
        return ""
    if named[0] in _HINTS:
        return f". {_HINTS[named[0]]}"
    return (
        f". {named[0]} is {sent[named[0]]} in decoding {decoding.name!r}: name others in --decodings, or change it in "
        "--decodings-file"
    )


def _can_go(name: str, value: Any) -> bool:
    return name in CONCESSIONS and (name not in _NEUTRAL or value == _NEUTRAL[name])


def _names(refusal: str, parameter: str) -> bool:
    return re.search(rf"(?<!\w){parameter}(?!\w)", refusal.lower()) is not None
