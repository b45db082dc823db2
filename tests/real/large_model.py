"""A server on loopback that answers as a large model behind an OpenAI-compatible API does, for an evolver and for a judge.

What it has of such a server: the chat-completions protocol with ids, token usage, `n`, `max_tokens` and finish reasons; a 429 with
Retry-After on the first request; and replies of many styles, because real evolvers answer the EvolInstruct templates in all of these
ways: the bare prompt, a heading echoed (`#Rewritten Prompt#:`, also in bold or after a thought), a preamble ("Here is the rewritten
prompt:"), quotation marks, a refusal, a reply cut at its length, content withheld by a filter. A reply is a function of the request, so a
rerun is answered in the same way.

What it leaves out: streaming, tools, log-probabilities, stop sequences, accounts, images, and any knowledge. Evolutions are the given
prompt with a requirement added, and new prompts come from a list; a judge's rating grows with the answer's length. Tokens are counted as
four characters each.
"""

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHARACTERS_PER_TOKEN = 4
REQUIREMENTS = {
    "one more constraints": (
        "Answer in at most sixty words.",
        "Name exactly three points, the most important one first.",
        "Mention one advantage and one disadvantage of what you propose.",
        "Use no technical terms, and explain the reason for every piece of advice.",
        "End with one question that I should ask myself.",
    ),
    "depth and breadth": (
        "Also explain what most people get wrong about this, and why.",
        "Also describe how the answer would have been different a hundred years ago.",
        "Compare it with how people in another country would see it.",
        "Say also what would happen in the long run if nothing were done.",
    ),
    "more specific concepts": (
        "Assume that it is about a family of four in a small coastal town in November.",
        "Assume a budget of forty euros and one free Saturday.",
        "Assume that the person concerned is a retired electrician of seventy-two.",
        "Assume that there are only two hours left and no shop is open.",
    ),
    "multiple-step reasoning": (
        "First list what has to be known, then weigh two possible answers, and only then decide.",
        "Work through it step by step, and check each step before the next one.",
        "Start from the worst possible outcome and reason backwards to the first step.",
    ),
}
"""What is added to a prompt, by words of the EvolInstruct template that asks for it."""
NEW_PROMPTS = (
    "How do beekeepers find out whether a hive is about to swarm?",
    "Write a polite note to a night nurse who forgot to close the window.",
    "Which old crafts would help a modern household during a power cut?",
    "Explain how a canal lock works to somebody who only knows rivers.",
    "What should be considered before adopting a deaf cat?",
    "How can a choir rehearse when its members live in three time zones?",
    "Suggest a menu for a guest who eats neither wheat nor nightshades.",
    "Why did lighthouse keepers keep such detailed diaries?",
    "How would you teach a grandfather to send voice messages?",
    "Describe the smell of rain on a hot road in four sentences.",
    "What makes a good bench, and where in a park should it stand?",
    "How can I decline an invitation to be a best man without hurting him?",
    "Why does an accordion sound different in a cold church?",
    "Plan a birthday party for twin sisters who dislike surprises.",
    "What can be learned about a town from its cemetery?",
    "How do I explain inflation with nothing but a bag of apples?",
)
REFUSAL = "I'm sorry, but I can't assist with that request."
STYLES = ("plain",) * 6 + ("heading", "bold_heading", "thought", "preamble", "quoted", "refusal", "cut", "filtered")
EVOLVING = re.compile(r"#(?:The )?Given Prompt#:\n(.*)\n#(Rewritten|Created) Prompt#:\n*\Z", re.DOTALL)
THOUGHT = "<think>\nThe user wants a harder prompt. I could ask for more detail.\n</think>\n\n"


class LargeModel(ThreadingHTTPServer):
    """`requests` holds every body that was answered, `styles` how often an evolution had each style."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.guard = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.styles: Counter[str] = Counter()
        self.evolutions: set[str] = set()
        """The prompts that the evolver meant, without what it wrapped around them."""
        self.busy = True
        """Whether the next request is told to come again later."""

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def reply(self, model: str, text: str, seed: int, room: int) -> tuple[str | None, str]:
        """(content, finish reason) for a request's last message, of a model `judge` or another, within so many characters."""
        draw = random.Random(f"{seed}\n{text}")
        if match := EVOLVING.search(text):
            content, reason = self._evolve(text, *match.groups(), draw)
        elif model == "judge":
            content, reason = _rating(text), "stop"
        else:
            content, reason = "That depends on what you want to know; the short answer is yes.", "stop"
        return (content[:room], "length") if content is not None and len(content) > room else (content, reason)

    def _evolve(self, text: str, given_prompt: str, heading: str, draw: random.Random) -> tuple[str | None, str]:
        if heading == "Created":
            prompt = draw.choice(NEW_PROMPTS)
        else:
            additions = next(values for words, values in REQUIREMENTS.items() if words in text.partition("#The Given Prompt#:\n")[0])
            prompt = f"{given_prompt} {draw.choice(additions)}"
        style = draw.choice(STYLES)
        with self.guard:
            self.styles[style] += 1
            self.evolutions.add(prompt)
        match style:
            case "heading":
                return f"#{heading} Prompt#:\n{prompt}", "stop"
            case "bold_heading":
                return f"**#{heading} Prompt#:**\n\n{prompt}", "stop"
            case "thought":
                return f"{THOUGHT}#{heading} Prompt#:\n{prompt}", "stop"
            case "preamble":
                return f"Here is the {heading.lower()} prompt:\n\n{prompt}", "stop"
            case "quoted":
                return f'"{prompt}"', "stop"
            case "refusal":
                return REFUSAL, "stop"
            case "cut":
                return prompt[: len(prompt) // 2], "length"
            case "filtered":
                return None, "content_filter"
        return prompt, "stop"


def _rating(text: str) -> str:
    words = len(text.split())
    return (
        f"The answer addresses the question, with some omissions. It has the length that one would expect.\n\nRating: [[{1 + words % 9}]]"
    )


class _Handler(BaseHTTPRequestHandler):
    server: LargeModel

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": "evolver", "object": "model", "owned_by": "loopback"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.guard:
            busy, self.server.busy = self.server.busy, False
            if not busy:
                self.server.requests.append(body)
            number = len(self.server.requests)
        if busy:
            self._send(429, {"error": {"message": "Rate limit reached, try again in 1s.", "type": "requests", "code": "429"}}, "1")
            return
        text = body["messages"][-1]["content"]
        count, limit = body.get("n") or 1, body.get("max_tokens") or 4096
        replies = [self.server.reply(body["model"], text, (body.get("seed") or 0) + k, limit * CHARACTERS_PER_TOKEN) for k in range(count)]
        input_tokens = sum(_tokens(message["content"]) for message in body["messages"])
        output_tokens = sum(_tokens(content or "") for content, _ in replies)
        choices = [
            {"index": k, "finish_reason": reason, "logprobs": None, "message": {"role": "assistant", "content": content, "refusal": None}}
            for k, (content, reason) in enumerate(replies)
        ]
        usage = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, "total_tokens": input_tokens + output_tokens}
        common_fields = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1_700_000_000 + number, "model": body["model"]}
        self._send(200, {**common_fields, "choices": choices, "usage": usage, "system_fingerprint": None})

    def _send(self, code: int, body: dict[str, Any], retry_after: str | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in {**headers, **({"Retry-After": retry_after} if retry_after else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


@contextmanager
def large_model() -> Iterator[LargeModel]:
    """The server at work while the block runs."""
    server = LargeModel()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
