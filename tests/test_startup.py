"""What a command imports: help no PyTorch, a prediction nothing that it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from terminal import environment

NEVER = (  # in a prediction: PyTorch's compiler above all, and what other commands need
    *("torch._dynamo", "torch._inductor", "sympy", "torchvision", "transformers", "lightning"),
    *(
        "torchmetrics",
        "scipy",
        "sklearn",
        "matplotlib",
        "pandas",
        "gradio",
        "fastapi",
        "ray",
        "onnx",
        "openvino",
    ),
    *("tensorboard", "jinja2"),
)
HELP_NEVER = (
    *NEVER,
    "torch",
    "numpy",
    "av",
    "PIL",
    "huggingface_hub",
    "safetensors",
    "tqdm",
    "filelock",
    "asyncio",
)
COMMANDS = (
    "",
    "predict",
    "train",
    "evaluate",
    "explain",
    "watch",
    "calibrate",
    "data",
    "data check",
    "serve",
)


def test_ctrl_c_is_heard_before_anything_takes_long() -> None:
    """What is imported before the entry point's handler: the interpreter's own start, and what takes no time."""
    code = "import sys\nbefore = {*sys.modules}\nimport peakzoom.__main__\nprint(*{*sys.modules} - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    ours = {name for name in done.stdout.split() if name.startswith("peakzoom")}
    assert ours == {"peakzoom", "peakzoom.__main__"} and not {"typing", "typer"} & {*done.stdout.split()}


def imported(words: list[str]) -> tuple[set[str], str]:
    """The modules that a command has imported when it ends, and what it has written."""
    code = (
        "import sys\nfrom peakzoom.cli import main\n"
        f"sys.argv = ['peakzoom', *{words!r}]\n"
        "try:\n    main()\nfinally:\n    print(*sorted(sys.modules), sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split()), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_library_of_numbers(command: str) -> None:
    found, text = imported([*command.split(), "--help"])
    assert "Usage" in text and not found & set(HELP_NEVER)


@pytest.mark.slow
def test_a_prediction_imports_only_what_it_uses(run: Path, clips: Path) -> None:
    video = next(clips.rglob("*.mp4"))
    found, text = imported(["predict", str(run), str(video)])
    assert str(video) in text and "torch" in found and not found & set(NEVER)
