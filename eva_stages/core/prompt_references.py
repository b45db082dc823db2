"""References of prompts: where they come from, and the request for a prompt with a reference that evolvers get."""

from typing import Any

GIVEN_REFERENCE, EVOLVER_REFERENCE, MAJORITY_REFERENCE, MISSING_REFERENCE = "given", "evolver", "majority", "missing"
"""Sources of the reference that responses are checked against: the seed prompts' source, the evolver, a vote of the responses, none."""
SOURCES = (GIVEN_REFERENCE, EVOLVER_REFERENCE, MAJORITY_REFERENCE, MISSING_REFERENCE)
PREFIX = "references_"
"""Prefix of a stage's counts of prompts by source."""
VOTERS = ("math", "lettercraft")
"""Verifiers whose final answers can be compared for a majority."""
PROMPT_AND_REFERENCE = "prompt_and_reference"

REQUEST = (
    "#Form of the Reply#:\nReply with nothing but one JSON object with two texts, "
    '{"prompt": "...", "reference": "..."}. "prompt" is the new prompt. "reference" is the correct final answer to the new prompt, which '
    "you work out before you reply; responses to the new prompt are checked against it.\n"
)
"""Ends the request to an evolver that has to return a prompt and its reference."""
RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": PROMPT_AND_REFERENCE,
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"prompt": {"type": "string"}, "reference": {"type": "string"}},
            "required": ["prompt", "reference"],
            "additionalProperties": False,
        },
    },
}
"""The same form as a JSON schema, in OpenAI's format of a request."""


def with_request(meta_prompt: str, reference: str | None) -> str:
    """A request for a new prompt, extended by the given prompt's reference, where it has one, and by the form of the reply."""
    known_reference = [f"#Reference of the Given Prompt#:\n{reference}\n"] if reference is not None else []
    return "\n".join([meta_prompt, *known_reference, REQUEST])


def source_counts(counts: dict[str, float]) -> dict[str, int]:
    """The prompts of a reward stage by the source of their reference; empty where the stage does not count them."""
    return {source: int(counts[PREFIX + source]) for source in SOURCES if counts.get(PREFIX + source)}
