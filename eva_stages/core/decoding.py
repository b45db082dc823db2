"""JSON and YAML from outside, with limits on size, depth and alias expansion: whatever a text holds, reading it ends soon.

Everything that is wrong with a text is a `ValueError` in one line. A parser's own recursion is never reached: depth is counted before
anything is built. YAML aliases are copied, so that two places of a document never share a value.
"""

import math
from json import JSONDecoder
from typing import Any

import yaml

MAX_CHARACTERS = 1 << 18
"""Of a YAML text."""
MAX_DEPTH = 64
"""Of lists and mappings inside each other."""
MAX_NODES = 20_000
"""Of a YAML document once its aliases are expanded."""
MAX_BITS = 64
"""Of an integer in YAML."""
SHORTEST = 100
"""Characters of a value that are quoted in a message."""


def decode_json(content: str | bytes, unique_keys: bool = False) -> Any:
    """The value of a JSON text in UTF-8, with or without a byte order mark.

    Args:
        unique_keys: refuse an object that gives a key twice.

    Raises:
        ValueError: if it is none, is nested deeper than `MAX_DEPTH`, or holds a number with too many digits to be read.
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
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return found


_PLAIN, _UNIQUE = JSONDecoder(), JSONDecoder(object_pairs_hook=_unique)


def _may_be_deep(text: str) -> bool:
    return text.count("[") + text.count("{") > MAX_DEPTH


def _check_depth(text: str) -> None:
    """Count brackets outside of strings."""
    depth, inside, escaped = 0, False, False
    for character in text:
        if inside:
            inside = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        elif character in "]}":
            depth -= 1


def decode_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a YAML text, and its node tree for the places of its parts.

    Raises:
        ValueError: with what is wrong: no YAML, too large, too deep, an alias of itself, a key that is no text, a number of more than
            `MAX_BITS` bits, a character that no file can hold.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _check_keys(root)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())[: 3 * SHORTEST]) from error
    except (TypeError, AttributeError, KeyError, OverflowError) as error:  # PyYAML's own, of a tag that does not fit its value
        raise ValueError(f"not valid YAML: a value does not fit its tag ({type(error).__name__})") from error
    return _copied(value), root


def _check_events(text: str) -> None:
    """Depth and size as they are with all aliases expanded, counted before anything is built."""
    sizes: dict[str | None, tuple[int, int]] = {}  # of every anchor: nodes, and levels below it
    open_nodes: list[tuple[str | None, int, int]] = []  # anchor, nodes before it, deepest level before it
    depth = total = deepest = 0
    events: Any = yaml.parse(text, Loader=yaml.SafeLoader)
    for event in events:
        place = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, *_ in open_nodes):
                raise ValueError(f"{place}: the alias *{event.anchor} stands inside of what it names")
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
            anchor, before, deepest_before = open_nodes.pop()
            depth -= 1
            if anchor:
                sizes[anchor] = (total - before, deepest - depth)
            deepest = max(deepest, deepest_before)
        if max(depth, deepest) > MAX_DEPTH:
            raise ValueError(f"{place}: it is nested deeper than {MAX_DEPTH} levels")
        if total > MAX_NODES:
            raise ValueError(f"{place}: it has more than {MAX_NODES:,} values, aliases expanded")


def _check_keys(node: yaml.Node) -> None:
    """Keys are texts: YAML takes an unquoted yes, 1 or 2024-01-01 for something else."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:str" and key.tag != "tag:yaml.org,2002:merge":
                shown = key.value[:SHORTEST] if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise ValueError(f"line {key.start_mark.line + 1}: the key {shown} is no text; put it in quotes")
            _check_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            _check_keys(entry)


def _copied(value: Any) -> Any:
    """The value in lists and dicts of its own, its numbers and texts checked."""
    match value:
        case dict():
            return {_text(key): _copied(item) for key, item in value.items()}
        case list() | tuple() | set():
            return [_copied(item) for item in value]
        case str():
            return _text(value)
        case bool():
            return value
        case int() if value.bit_length() > MAX_BITS:
            raise ValueError(
                f"a number has about {math.ceil(value.bit_length() * 0.30103):,} digits; whole numbers have at most {MAX_BITS} bits"
            )
        case _:
            return value


def _text(text: str) -> str:
    if unusable := next((character for character in text if character == "\0" or "\ud800" <= character <= "\udfff"), None):
        raise ValueError(f"a text holds the character {unusable!r}, which no file can; remove it")
    return text


def short(value: Any, characters: int = SHORTEST) -> str:
    """A value as Python writes it, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= characters else f"{text[:characters]}... ({len(text):,} characters)"
