from typing import Any

from torch import Tensor

def gather(
    groups: list[dict[str, Any]],
    params: list[Tensor],
    absent: bytes,
    state: dict[Any, Any],
    known: list[Any],
    views: int,
) -> list[Tensor] | None: ...
