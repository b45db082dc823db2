"""A bound name contains a noun (or, for a function, a verb), no bare participle; docstrings name existing parameters."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("cli", "pipelines", "eva_stages", "benchmarks", "tests", "hub_cards", "configs")

EXCEPTIONS = {
    "chosen": "the field's term for the better response of a pair, and TRL's column",
    "rejected": "the field's term for the worse response of a pair, and TRL's column",
    "evolved": "a stage, a column and a health sign of that name",
    "selected": "a stage and a column of that name",
    "resolved": "the term for what `resolve` returns",
    "expected": "the usual name for what a test compares with",
    "until": "the option --until",
    "gamed": "the option --gamed and a recipe field",
    "unknown": "the usual noun for a value that is not known",
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NOUNS = _words(
    """
    bed breed creed deed embed feed greed need red reed seed shed sled speed steed weed alien children even eleven garden golden green
    hyphen kitchen listen lumen open oven queen screen seven siren token women
    """
)
"""Words that end in -ed or -en and are no participles."""
IRREGULAR = _words(
    """
    begun born bought brought built caught dealt done drawn felt foretold fought found gone got grown heard held kept known laid led
    lent lit lost made meant met paid rid said seen sent shot shown sold sought spent stood struck stuck sung swept taught
    thrown told torn undone redone understood unknown unmade unread untold left given withheld won worn wound
    """
)
VERBS_TOO = _words("bound cut put read shut")
PRONOUNS = _words(
    """
    another anybody anyone anything both each either enough everybody everyone everything few fewer it its itself least less many more
    most much neither nobody none nothing one ones other others own same several somebody someone something such that their theirs
    them these they this those what which who whom whose
    """
)
ADVERBS = _words(
    """
    above after again ahead alone already also always anew apart around aside away back before beforehand behind below beside besides
    beyond down else elsewhere ever forth hence here inside instead maybe meanwhile never not now off once only out over perhaps since
    so sometimes still there thus together too twice under until up while within without yet afterwards
    """
)
FUNCTION_WORDS = _words("a an and as at been but by for from if in just no of on or than the to with")
PREDICATES = _words("are can do does had has have if is may must should was were will")


def is_bare(name: str, function: bool = False) -> bool:
    words = [word.lower() for part in name.split("_") for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", part)]
    if not words or words[0] in PREDICATES:
        return False
    bare = [_bare_word(word, function) for word in words]
    return any(bare) and all(is_one or word in FUNCTION_WORDS for word, is_one in zip(words, bare, strict=True))


def _bare_word(word: str, function: bool) -> bool:
    if word in VERBS_TOO:
        return not function
    if word in IRREGULAR or word in PRONOUNS or word in ADVERBS:
        return True
    participle = (len(word) > 3 and word.endswith("ed") and not word.endswith("eed")) or (len(word) > 4 and word.endswith("en"))
    return participle and word not in NOUNS


def bound_names(tree: ast.AST, recipe_fields: bool = False) -> Iterator[tuple[int, str, bool]]:
    """Line, name and whether it is a function's, of each name that a module binds; `recipe_fields` leaves the fields of classes out."""
    fields = {
        id(statement.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) if not (recipe_fields and id(node) in fields):
                yield node.lineno, name, False
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield node.lineno, name, False
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name, True
            case ast.ClassDef(name=name) | ast.arg(arg=name) | ast.alias(asname=str(name)):
                yield node.lineno, name, False
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                yield node.lineno, name, False


def sources() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_contain_a_noun(folder: str) -> None:
    bare_names = []
    for path in sources():
        place = str(path.relative_to(ROOT))
        if place.startswith(f"{folder}/"):
            tree = ast.parse(path.read_text())
            for line, name, function in bound_names(tree, recipe_fields="core/config/" in place):
                if is_bare(name, function) and name.lower() not in EXCEPTIONS:
                    bare_names.append(f"{place}:{line} {name}")
    assert not bare_names, "names without a noun: " + ", ".join(bare_names)


def unknown_arguments(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line of a function or class, and each name under `Args:` in its docstring that is not a parameter."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        _, _, section = (ast.get_docstring(node) or "").partition("Args:\n")
        lines = section.partition("\n\n")[0].splitlines()
        names = [
            name.strip(" *") for line in lines if (entry := re.match(r" {4}(\*{0,2}\w[\w, *]*):", line)) for name in entry[1].split(",")
        ]
        functions = (
            [node] if not isinstance(node, ast.ClassDef) else [part for part in node.body if getattr(part, "name", "") == "__init__"]
        )
        for function in functions:
            parameters = {part.arg for part in ast.walk(function.args) if isinstance(part, ast.arg)}
            yield from ((node.lineno, name) for name in names if name not in parameters)


def test_docstrings_name_parameters_that_exist() -> None:
    trees = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in sources()}
    assert [f"{place}:{line} {name}" for place, tree in trees.items() for line, name in unknown_arguments(tree)] == []
    assert [
        name for _, name in unknown_arguments(ast.parse('def f(a, *b):\n    """F.\n\n    Args:\n        a, b: x.\n        c: y.\n    """'))
    ] == ["c"]


@pytest.mark.parametrize("name", ["found", "_kept", "not_found", "one", "as_told", "SHOWN", "held_out", "LeftOut", "own"])
def test_a_bare_name_is_recognised(name: str) -> None:
    assert is_bare(name)


@pytest.mark.parametrize("name", ["missing_rows", "seed", "tokens", "embed", "kept_rows", "is_done", "has_failed", "rest", "open"])
def test_a_name_with_a_noun_passes(name: str) -> None:
    assert not is_bare(name)


def test_every_way_of_binding_a_name_is_seen() -> None:
    code = """
import a as one
def two(three, *four, five=1, **six): ...
class Seven:
    eight: int = 0
    def nine(self): self.ten = 1
for eleven in []: ...
with a as twelve: ...
try: ...
except E as thirteen: ...
if fourteen := 1: ...
match a:
    case {"x": fifteen, **sixteen}: ...
    case [*seventeen]: ...
[0 for eighteen in []]
"""
    names = {name for _, name, _ in bound_names(ast.parse(code))}
    expected = "one two three four five six Seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
    assert names - {"self"} == set(expected.split())
