"""``peakzoom push``: a trained model and its card onto the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peakzoom.cli.console import answer


def push(
    run: Annotated[Path, typer.Argument(help="Run folder or saved model.", show_default=False)],
    name: Annotated[str, typer.Argument(help="owner/name on the hub.", show_default=False)],
    *,
    private: Annotated[bool, typer.Option(help="If the repository is new, only you can see it.")] = False,
) -> None:
    """Put a trained model with its card on the Hugging Face hub, where peakzoom.load("owner/name") finds it.

    Example: `peakzoom push runs/first anna/kitchen-actions --private`
    """
    from peakzoom.hub.push import push as upload

    url = upload(run, name, private)
    answer(f"{url}\nTo load it: peakzoom.load({name!r})")
