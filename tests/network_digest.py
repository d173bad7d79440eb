"""Tells whether two networks are the same to PyTorch's tracer: classes, options, functions and every tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import is_dataclass
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

PARTS = ("_parameters", "_buffers", "_modules")


def digest_of_network(network: nn.Module, example: Tensor) -> str:
    """Give one text for networks that are traced alike; what cannot be compared, as an object's address, differs."""
    digest = hashlib.sha256(repr((example.shape, example.dtype)).encode())
    for name, part in network.named_modules(remove_duplicate=False):
        digest.update(f"{name} {type(part).__module__}.{type(part).__qualname__}".encode())
        for key, value in sorted(vars(part).items()):
            if key not in PARTS:
                digest.update(f"{key}={told(value)}".encode())
    for name, tensor in tensors_of(network):
        digest.update(f"{name} {tensor.shape} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tensors_of(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)


def told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.shape} {value.dtype} {value.tolist()}"
    if isinstance(value, MethodType):
        return f"{told(value.__func__)} of {type(value.__self__).__qualname__}"
    if isinstance(value, FunctionType):
        inner = [told(cell.cell_contents) for cell in value.__closure__ or ()]
        return (
            f"{value.__module__}.{value.__qualname__} {value.__code__.co_code!r} {inner} {value.__defaults__}"
        )
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(told, value))})"
    if isinstance(value, dict):
        return str({key: told(one) for key, one in value.items()})
    if is_dataclass(value):
        return f"{type(value).__qualname__} {told(vars(value))}"
    return repr(value)
