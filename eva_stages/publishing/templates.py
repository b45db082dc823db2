"""Where the templates of cards and pages are loaded: sandboxed, with every value escaped, and an error for a value that is missing."""

from importlib import resources

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment


def template_environment(keep_trailing_newline: bool = False) -> SandboxedEnvironment:
    """The environment of the templates in `hub_cards/`; the caller adds its filters."""
    return SandboxedEnvironment(
        loader=FileSystemLoader(str(resources.files("hub_cards"))),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )
