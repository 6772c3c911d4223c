"""Tensors and modules of PyTorch, by stand-ins: the library is too large for tests."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.context.golden import Case


class Tensor:
    """As PyTorch has it, on numpy's array."""

    def __init__(self, data: Any, *, grad: bool = False, device: str = "cpu") -> None:
        self.data, self.requires_grad, self.device = np.asarray(data, "float32"), grad, device
        self.dtype, self.layout, self.grad_fn = "torch.float32", "torch.strided", None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def detach(self) -> Tensor:
        return Tensor(self.data, device=self.device)

    def tolist(self) -> Any:
        return self.data.tolist()

    def __getitem__(self, key: Any) -> Tensor:
        return Tensor(self.data[key], device=self.device)

    def __len__(self) -> int:
        return len(self.data)

    def __dlpack__(self) -> Any:
        if self.requires_grad:
            raise RuntimeError("Can't export tensors that require gradient")
        return self.data.__dlpack__()

    def __array__(self, *args: Any, **options: Any) -> Any:
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self.data

    # PyTorch's class has all of them as descriptors.
    requires_grad: Any = False
    dtype: Any = None


class Module:
    """As PyTorch has it."""

    def __init__(self, extra: str = "", size: tuple[int, ...] = (), **children: Module) -> None:
        self.extra, self.own, self.inner, self.training = extra, size, children, True

    def extra_repr(self) -> str:
        return self.extra

    def named_children(self) -> Any:
        return self.inner.items()

    def children(self) -> Any:
        return self.inner.values()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, one in self.inner.items():
            yield from one.named_modules(f"{prefix}.{name}".lstrip("."))

    def modules(self) -> Iterator[Module]:
        return (one for _, one in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        for name, one in self.named_modules():
            for parameter in one.parameters(recurse=False):
                yield f"{name}.weight", parameter

    def parameters(self, *, recurse: bool) -> list[Any]:
        assert not recurse
        kept = {"shape": self.own, "dtype": "torch.float32", "device": "cpu"}
        return [SimpleNamespace(requires_grad=True, **kept)] if self.own else []


Tensor.__module__, Module.__module__ = "torch", "torch.nn.modules.module"
Linear, ReLU = (type(name, (Module,), {}) for name in ("Linear", "ReLU"))


def network() -> Any:
    return Module(
        first=Linear("in_features=64, out_features=32", (32, 64)),
        act=ReLU(),
        last=Linear("in_features=32, out_features=10", (10, 32)),
    )


def deep() -> Any:
    blocks = {f"block{n}": network() for n in range(12)}
    return Module(**blocks, head=Linear("in_features=10, out_features=2", (2, 10)))


CASES = {
    "tensor": Case(lambda: Tensor(np.arange(600.0).reshape(20, 30) / 8), "74.88 0.125"),
    "tensor-with-gradient": Case(lambda: Tensor([1.5, 2.5], grad=True, device="cuda:0"), "1.5"),
    "module": Case(network),
    "module-deep": Case(deep),
}
