"""An OpenAI-compatible server that misbehaves as the first word of the prompt says; standard library only.

`!no:400,n,seed` refuses requests with one of these fields and names it, `!mute:400,n` does not name it.

Prints its port. What comes before `/v1` in a path is a session of its own, whose requests `GET /SESSION/log` tells.
"""

import json
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKENS = [-0.5, -0.25, -1.0]
"""The log-probabilities of any response's tokens."""

PROMPT_TOKENS = 7


class Session:
    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.tries: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0


SESSIONS: defaultdict[str, Session] = defaultdict(Session)
LOCK = threading.Lock()

STATUSES: dict[str, tuple[int, str]] = {
    "!400": (400, "This model's maximum context length is 16 tokens"),
    "!422": (422, "cannot process this"),
    "!logprobs": (400, "this model has no 'logprobs'"),
    "!402": (402, "no credit"),
    "!403": (403, "not for you"),
    "!404": (404, "The model `tiny` does not exist"),
    "!500": (500, "out of order"),
    "!500-twice": (500, "out of order"),
    "!429": (429, "slow down"),
    "!429-always": (429, "slow down"),
    "!429-long": (429, "come back tomorrow"),
    "!429-pause": (429, "come back in a minute"),
}
RETRY_AFTER = {"!429": "1", "!429-long": "600", "!429-pause": "60"}
OFTEN = {"!500-twice": 2, "!429": 1, "!cut-once": 1, "!malformed-once": 1}
"""How often each of them fails; the others always do."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for the other side's delayed acknowledgement

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        session = SESSIONS[self.path.split("/")[1]]
        self.reply(200, {"requests": session.requests, "most_in_flight": session.most_in_flight})

    def do_POST(self) -> None:
        name, route = self.path[1:].split("/v1/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = route == "chat/completions"
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        session = SESSIONS[name]
        with LOCK:
            session.requests.append(
                {"route": route, "body": body, "time": time.monotonic(), "key": self.headers["Authorization"]}
            )
            session.tries[prompt] += 1
            session.in_flight += 1
            session.most_in_flight = max(session.most_in_flight, session.in_flight)
        word = prompt.split(" ")[0]
        try:
            if word.startswith("!") and session.tries[prompt] <= OFTEN.get(word, 1_000_000):
                self.misbehave(word, body, prompt, chat)
            else:
                self.reply(200, answer(body, prompt, chat))
        finally:
            with LOCK:
                session.in_flight -= 1

    def misbehave(self, word: str, body: dict[str, Any], prompt: str, chat: bool) -> None:
        key = self.headers["Authorization"].removeprefix("Bearer ")
        good = answer(body, prompt, chat)
        if word in STATUSES:
            status, message = STATUSES[word]
            error = {"message": message, "type": "error", "code": None}
            self.reply(status, {"error": error}, **({"Retry-After": RETRY_AFTER[word]} if word in RETRY_AFTER else {}))
        elif word == "!401":
            self.reply(401, {"error": {"message": f"Incorrect API key provided: {key}."}})
        elif word == "!quota":
            self.reply(429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
        elif word in ("!cut", "!cut-once"):
            self.close_connection = True
        elif word == "!cut-body":
            self.reply(200, good, cut=True)
        elif word in ("!malformed", "!malformed-once"):
            self.reply(200, f"<html>{key}</html>")
        elif word == "!shape":
            self.reply(200, {"choices": [{"index": 0}]})
        elif word == "!error-in-200":
            self.reply(200, {"error": {"message": f"no provider for {key}"}})
        elif word.startswith(("!no:", "!mute:")):
            status, *fields = word.split(":")[1].split(",")
            refused = [field for field in fields if field in body]
            message = f"Unsupported parameter: '{refused[0]}'" if refused and word.startswith("!no:") else "bad request"
            self.reply(int(status) if refused else 200, {"error": {"message": message}} if refused else good)
        else:
            self.reply(200, bend(word, good))

    def reply(self, status: int, content: object, *, cut: bool = False, **headers: str) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut


def answer(body: dict[str, Any], prompt: str, chat: bool) -> dict[str, Any]:
    """Responses that name the prompt, the seed and their number."""
    choices: list[dict[str, Any]] = []
    for index in range(body.get("n", 1)):
        choice: dict[str, Any] = {"index": index, "finish_reason": "stop", "logprobs": None}
        text = f"{prompt} {body.get('seed')} {index}"
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        if body.get("logprobs"):
            tokens = [{"token": "x", "logprob": value, "top_logprobs": []} for value in TOKENS]
            choice["logprobs"] = {"content": tokens} if chat else {"token_logprobs": TOKENS, "tokens": ["x"] * 3}
        choices.append(choice)
    return {"choices": choices, "usage": usage(len(choices) * len(TOKENS))}


def usage(completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion,
        "total_tokens": PROMPT_TOKENS + completion,
    }


def bend(word: str, good: dict[str, Any]) -> dict[str, Any]:
    """An answer that can be read, and is not what was asked for."""
    if word == "!slow":
        time.sleep(0.05)
    elif word == "!hang":
        time.sleep(1.5)
    elif word == "!one":
        good = {"choices": good["choices"][:1], "usage": usage(len(TOKENS))}
    elif word == "!more":
        good = {**good, "choices": good["choices"] * 2}
    elif word == "!no-logprobs":
        good = {**good, "choices": [{**choice, "logprobs": None} for choice in good["choices"]]}
    elif word == "!no-usage":
        good = {"choices": good["choices"]}
    elif word == "!reasoning":
        message = {"role": "assistant", "content": None, "reasoning_content": "let me think"}
        bent = [{**choice, "message": message, "finish_reason": "length"} for choice in good["choices"]]
        good = {**good, "choices": bent, "usage": None}
    elif word == "!endless":
        good = {**good, "usage": usage(100_000)}
    else:
        raise ValueError(word)
    return good


class Server(ThreadingHTTPServer):
    request_queue_size = 128


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
