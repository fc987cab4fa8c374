"""Public weights into a video network, by name and shape.

The networks in ``model/backbones`` keep the parameter names of the public code they follow, so that its weight files
load. A file is read without running code that it may contain: safetensors, or a PyTorch file of plain tensors.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from peakzoom.utils.errors import UserError

WRAPPINGS = ("state_dict", "model_state", "model")  # keys under which training code keeps the weights
PREFIXES = ("module.", "model.")  # of nn.DataParallel and of Lightning
CLASSIFIER = {"fc.weight", "fc.bias"}
NAMED = 3  # names that a message spells out
# What reading a cut or foreign file raises: it depends on where the reader stumbles.
TORN = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


def load_weights(network: nn.Module, file: str | Path) -> list[str]:
    """Load a public weight file into a video network.

    The classifier ``fc`` is loaded if the file's has as many classes (whether they are the same classes, a file does
    not say), otherwise it stays as it was made. Everything else has to be there and to fit. The network is changed
    only if all of it does.

    A network may have ``adapt_weights(state) -> state``, which turns another public layout into its own names and
    shapes; ``replaced_head``, the first parts of names of a published head that it has no place for; and
    ``new_parts``, the first parts of names that a public file of its body alone does not have. Where the file has
    nothing of these, they stay as they were made, and so does the classifier, which reads what they make.

    Args:
        network: a :class:`~peakzoom.model.backbones.VideoNetwork`.
        file: .safetensors, or what ``torch.save`` wrote: tensors by name, also under "state_dict" or "model".

    Returns:
        Sentences on what was loaded and what was left out.

    Raises:
        UserError: the file cannot be read without running code, or does not fit the network.
    """
    file = Path(file)
    state = read_weights(file)
    if adapt := getattr(network, "adapt_weights", None):
        state = adapt(state)
    state, new, notes = _usable(network, state, file.name)
    _check(network, state, new, file)
    network.load_state_dict({**network.state_dict(), **state})
    return [f"{len(state)} tensors of {file.name} loaded", *notes]


def _usable(
    network: nn.Module, state: dict[str, Tensor], file: str
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The tensors that the network has a place for; its parts that stay new beside the classifier; notes on both."""
    notes: list[str] = []
    heads = sorted({_part(name) for name in state} & set(getattr(network, "replaced_head", ())))
    if heads:
        state = {name: value for name, value in state.items() if _part(name) not in heads}
        notes.append(f"{_listed(heads)} of {file} left out: this network has one classifier in their place")
    elif not CLASSIFIER & state.keys():
        notes.append(f"{file} has no classifier: this model's is new")

    new = list(getattr(network, "new_parts", ()))
    if not new or any(_part(name) in new for name in state):
        new = []  # the file is not of the body alone
    else:
        notes.append(f"{file} has nothing for {_listed(new)}: this model's are new")

    fc = network.state_dict().get("fc.weight")
    there, here = (None if each is None else each.shape for each in (state.get("fc.weight"), fc))
    left_out = None
    if new and CLASSIFIER & state.keys():
        left_out = "the classifier was left out: it was made for other features"
    elif there and here and there[0] != here[0] and there[1:] == here[1:]:
        left_out = f"the classifier of {there[0]} classes was left out, this model has {here[0]}"
    if left_out:
        notes.append(left_out)
        state = {name: value for name, value in state.items() if name not in CLASSIFIER}
    return state, new, notes


def _check(network: nn.Module, state: dict[str, Tensor], new: list[str], file: Path) -> None:
    """UserError if a tensor is unknown to the network, is missing, or has another shape."""
    own, whose = network.state_dict(), type(network).__name__
    way_out = "name the --model that the file was made for"
    if unknown := [name for name in state if name not in own]:
        raise UserError(f"{file} is not of this network: {whose} has no {_first(unknown)}; {way_out}")
    may_lack = set() if CLASSIFIER & state.keys() else CLASSIFIER
    missing = [
        name
        for name in own
        if name not in state.keys() | may_lack
        and not name.endswith("num_batches_tracked")
        and _part(name) not in new
    ]
    if missing:
        raise UserError(
            f"{file} is not of this network: it lacks {_first(missing)}, which {whose} has; {way_out}"
        )
    if unfit := [name for name, value in state.items() if value.shape != own[name].shape]:
        name = unfit[0]
        raise UserError(
            f"{file} is of another size than this network: {name} is {tuple(state[name].shape)} there and "
            f"{tuple(own[name].shape)} here, and {len(unfit)} of {len(state)} tensors differ so; "
            "use the published width"
        )


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name, without what wraps them: (name, tensor) of a .safetensors or a PyTorch file, on the CPU."""
    if not file.is_file():
        raise UserError(f"{file} is no file; expected weights, .safetensors or what torch.save wrote")
    content = _read_file(file)
    for _ in WRAPPINGS:  # one may hold another
        if isinstance(content, Mapping):
            inner = [content[key] for key in WRAPPINGS if isinstance(content.get(key), Mapping)]
            content = inner[0] if inner else content
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{file} holds a {type(content).__name__}{' without entries' if content == {} else ''}; "
            "expected tensors by name, as state_dict() gives them"
        )
    if odd := [
        key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))
    ]:
        raise UserError(f"{file} holds {_first(odd)} beside tensors; expected tensors by name alone")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        name = _bare(key)
        if name in state:
            raise UserError(f"{file} has two tensors for {name}; expected the weights of one network")
        state[name] = value
    return state


def _read_file(file: Path) -> Any:
    tensors = file.suffix == ".safetensors"
    try:
        return load_file(file) if tensors else torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():
            raise UserError(f"{file} is no weight file that PyTorch can read; get the file again") from error
        raise UserError(
            f"{file} would run code when read, so it was not; save its state_dict() as .safetensors where you "
            "trust it"
        ) from error
    except (SafetensorError, *TORN) as error:
        kind = "safetensors" if tensors else "a PyTorch file"
        raise UserError(f"{file} cannot be read as {kind} ({_line(error)}); get the file again") from error


def _part(name: str) -> str:
    """The first part of a parameter's name: its module in the network."""
    return name.split(".")[0]


def _bare(name: str) -> str:
    """A parameter's name without what training code puts before all names."""
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _first(names: Iterable[object]) -> str:
    """The first few, and how many there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - NAMED} more ({len(every)} in all)" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _listed(names: list[str]) -> str:
    """A, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _line(error: Exception) -> str:
    said = (str(error).splitlines() or [""])[0].split(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {said[:120]}"
