"""docs/architecture.md and its diagram agree with the code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from diarist.pipeline import transcription
from diarist.types import Stage
from support.scripts import loaded_script

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PIPELINE = ast.parse(Path(transcription.__file__).read_text("utf-8"))

NOT_DRAWN = {
    "mute", "recognition_chunk", "recognition_range", "parse_recognition", "run_distributed", "InvalidOption",
    "count_probability", "without_crosstalk", "ProgressMeter", "ConfirmedSpeech", "merged_speech", "spans_of_speech",
    "UtteranceFinalizer", "SpeakerHints", "Transcript",
}  # fmt: skip
"""What the pipeline calls of other modules, and is a part of a step or only accompanies it."""


@pytest.fixture(scope="module")
def drawing() -> Iterator[ModuleType]:
    with loaded_script(ROOT / "docs" / "draw_architecture.py") as module:
        yield module


def local_functions() -> dict[str, ast.FunctionDef]:
    """Return the functions of the pipeline's module, methods with the name of their class before them."""
    found = {node.name: node for node in PIPELINE.body if isinstance(node, ast.FunctionDef)}
    for outer in PIPELINE.body:
        if isinstance(outer, ast.ClassDef):
            found |= {f"{outer.name}.{node.name}": node for node in outer.body if isinstance(node, ast.FunctionDef)}
    return found


def calls(function: ast.FunctionDef, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """Yield the names that a function calls, in the order of the text, with those that its helpers call."""
    nodes = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        name = ast.unparse(node.func)
        if name in functions:
            yield from calls(functions[name], functions)
        else:
            yield name.rpartition(".")[2]


def test_the_diagram_is_up_to_date(drawing: ModuleType) -> None:
    assert drawing.TARGET.read_text("utf-8") == drawing.svg(), "run `make diagram`"


def test_the_steps_are_called_in_this_order(drawing: ModuleType) -> None:
    functions = local_functions()
    called = list(calls(functions["transcribe"], functions))
    first = [called.index(step.call) for step in drawing.STEPS[:6]]
    assert first == sorted(first)
    # Recognition is lazy: the words of a section are attributed before the next section is recognized.
    assert called.index("Attribution") < called.index("finish")


def test_everything_that_the_pipeline_calls_is_drawn(drawing: ModuleType) -> None:
    imported = {
        alias.name
        for node in PIPELINE.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diarist.")
        for alias in node.names
    }
    functions = local_functions()
    called = {name for function in functions.values() for name in calls(function, functions)}
    assert (imported & called) - NOT_DRAWN == {step.call for step in drawing.STEPS} & imported


def test_the_modules_exist_and_have_what_is_called(drawing: ModuleType) -> None:
    for box in (*drawing.ENTRIES, *drawing.SERVICE):
        importlib.import_module(box.module)
    for step in drawing.STEPS:
        name, _, last = step.module.rpartition(".")
        if last[0].isupper():
            assert hasattr(getattr(importlib.import_module(name), last), step.call)
        else:
            names = vars(importlib.import_module(step.module))
            assert step.call in names or any(hasattr(value, step.call) for value in names.values())


def test_all_stages_of_progress_are_shown_in_order(drawing: ModuleType) -> None:
    assert tuple(stage for step in drawing.STEPS for stage in step.stages) == get_args(Stage)


def test_every_package_is_on_the_page() -> None:
    packages = [path.name for path in (ROOT / "src" / "diarist").iterdir() if (path / "__init__.py").is_file()]
    assert packages
    assert [name for name in packages if f"`src/diarist/{name}`" not in PAGE] == []
