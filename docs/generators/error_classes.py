"""Makes the page of the errors from segdeploy/errors.py: its docstring's tree, and what each class says of itself."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

from segdeploy import errors

IN_TREE = re.compile(r"^\s+[├└]── (\w+)\s+(.+)$", re.MULTILINE)


def page() -> str:
    return "\n".join(sections())


def sections() -> Iterator[str]:
    meanings = dict(IN_TREE.findall(errors.__doc__ or ""))
    tree = ast.parse(inspect.getsource(errors))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield f"## {node.name}\n"
            said = ast.get_docstring(node)
            meaning = meanings.get(node.name, "")
            if meaning:
                yield f"{meaning[0].upper()}{meaning[1:]}.\n"
            if said:
                yield f"{paragraphs(said)}\n"


def paragraphs(text: str) -> str:
    """Set off the cure; a line that is wrapped in the code is one paragraph here."""
    return re.sub(r"^Cure:", "**Cure.**", text, flags=re.MULTILINE)
