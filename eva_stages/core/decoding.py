"""JSON and YAML from outside, with limits on size, depth and alias expansion, so that reading any text ends soon.

Every error in a text is a one-line `ValueError`. Parsers never reach their recursion limit: depth is counted first. YAML aliases are
copied, so that two places of a document never share a value.
"""

import math
from json import JSONDecoder
from typing import Any

import yaml

MAX_CHARACTERS = 1 << 18
"""Of a YAML text."""
MAX_DEPTH = 64
"""Of nested lists and mappings."""
MAX_NODES = 20_000
"""Of a YAML document with expanded aliases."""
MAX_BITS = 64
"""Of an integer in YAML."""
SHORTEST = 100
"""Characters of a value in a message."""


def decode_json(content: str | bytes, unique_keys: bool = False) -> Any:
    """The value of a JSON text in UTF-8, with or without a byte order mark.

    Args:
        unique_keys: reject an object with a repeated key.

    Raises:
        ValueError: if the text is not JSON, is nested deeper than `MAX_DEPTH`, or contains a number with too many digits.
    """
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
    if _may_be_deep(text):
        _check_depth(text)
    decoder = _UNIQUE if unique_keys else _PLAIN
    try:
        return decoder.decode(text)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    pairs_by_key = dict(pairs)
    if len(pairs_by_key) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated_key = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated_key!r} occurs twice")
    return pairs_by_key


_PLAIN, _UNIQUE = JSONDecoder(), JSONDecoder(object_pairs_hook=_unique)


def _may_be_deep(text: str) -> bool:
    return text.count("[") + text.count("{") > MAX_DEPTH


def _check_depth(text: str) -> None:
    """Count brackets outside of strings."""
    depth, in_string, is_escaped = 0, False, False
    for character in text:
        if in_string:
            in_string = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        elif character in "]}":
            depth -= 1


def decode_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a YAML text, and its node tree with the positions of its parts.

    Raises:
        ValueError: invalid YAML, too large, too deep, a recursive alias, a key that is not a string, a number of more than `MAX_BITS` bits,
            or a character that files cannot store.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}")
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _check_keys(root)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        text = " ".join(str(error).replace('in "<unicode string>", line', "in line").split())
        raise ValueError(f"not valid YAML: {text}") from error
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())[: 3 * SHORTEST]) from error
    except (TypeError, AttributeError, KeyError, OverflowError) as error:  # raised by PyYAML if a tag does not fit its value
        raise ValueError(f"not valid YAML: a value does not fit its tag ({type(error).__name__})") from error
    return _copy(value), root


def _check_events(text: str) -> None:
    """Check depth and size with all aliases expanded, before anything is built."""
    sizes: dict[str | None, tuple[int, int]] = {}  # of every anchor: nodes, and levels below it
    open_nodes: list[tuple[str | None, int, int]] = []  # anchor, nodes before it, deepest level before it
    depth = total = deepest = 0
    events: Any = yaml.parse(text, Loader=yaml.SafeLoader)
    for event in events:
        place = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, *_ in open_nodes):
                raise ValueError(f"{place}: the alias *{event.anchor} is inside the value that it refers to")
            nodes, levels = sizes.get(event.anchor, (1, 0))
            total, deepest = total + nodes, max(deepest, depth + levels)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = (1, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total, deepest))
            total, depth = total + 1, depth + 1
            deepest = depth
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, nodes_before, deepest_before = open_nodes.pop()
            depth -= 1
            if anchor:
                sizes[anchor] = (total - nodes_before, deepest - depth)
            deepest = max(deepest, deepest_before)
        if max(depth, deepest) > MAX_DEPTH:
            raise ValueError(f"{place}: it is nested deeper than {MAX_DEPTH} levels")
        if total > MAX_NODES:
            raise ValueError(f"{place}: it has more than {MAX_NODES:,} values, aliases expanded")


def _check_keys(node: yaml.Node) -> None:
    """Check that keys are strings: YAML reads an unquoted yes, 1 or 2024-01-01 as another type."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:str" and key.tag != "tag:yaml.org,2002:merge":
                key_text = key.value[:SHORTEST] if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise ValueError(f"line {key.start_mark.line + 1}: the key {key_text} is not a string; put it in quotes")
            _check_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            _check_keys(entry)


def _copy(value: Any) -> Any:
    """A deep copy of a value, with its numbers and texts checked."""
    match value:
        case dict():
            return {_text(key): _copy(item) for key, item in value.items()}
        case list() | tuple() | set():
            return [_copy(item) for item in value]
        case str():
            return _text(value)
        case bool():
            return value
        case int() if value.bit_length() > MAX_BITS:
            raise ValueError(
                f"a number has about {math.ceil(value.bit_length() * 0.30103):,} digits; integers have at most {MAX_BITS} bits"
            )
        case _:
            return value


def _text(text: str) -> str:
    if unusable := next((character for character in text if character == "\0" or "\ud800" <= character <= "\udfff"), None):
        raise ValueError(f"a text contains the character {unusable!r}, which files cannot store; remove it")
    return text


def short(value: Any) -> str:
    """Python's representation of a value, truncated for a message."""
    text = repr(value)
    return text if len(text) <= SHORTEST else f"{text[:SHORTEST]}... ({len(text):,} characters)"
