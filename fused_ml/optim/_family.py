"""What an optimizer says of its formula: a family of csrc/catalog/optimizers.h, as Python sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def on_host(number: Any) -> bool:
    """Whether `number` can be looked at without waiting for a device."""
    return not isinstance(number, Tensor) or number.device.type == "cpu"


def _number(value: Any) -> float | Tensor:
    # Every step comes here for every option, and to ask whether something is a Tensor takes long.
    kind = type(value)
    if kind is float:
        return value
    return float(value) if kind is int or kind is bool or on_host(value) else value


class Family:
    """Options and states of a formula.

    Args:
        name: of the family; its operators are `<name>_run`, of a plan, and `<name>_`, of lists.
        options: the keys of a parameter group that are the members of the formula's struct, in their order; a pair,
            such as `betas`, is two members.
        states: the keys of a parameter's state, in the order of the formula's bits, each with the key of the option
            that asks for it, or True.
        counts: whether each parameter has a `step`.
    """

    def __init__(
        self, name: str, options: tuple[str, ...], states: Mapping[str, str | bool], counts: bool = True
    ) -> None:
        self.run, self.run_lists = f"{name}_run", f"{name}_"
        self.options, self.states, self.counts = options, tuple(states), counts
        bits = [(1 << i, asked) for i, asked in enumerate(states.values())]
        self._always = sum(bit for bit, asked in bits if asked is True)
        self._asked = [(bit, asked) for bit, asked in bits if isinstance(asked, str)]

    def states_of(self, group: dict[str, Any]) -> int:
        """Which states a parameter of `group` has, by bit."""
        mask = self._always
        for bit, option in self._asked:
            if group[option]:
                mask |= bit
        return mask

    def names(self, mask: int) -> tuple[str, ...]:
        """The keys of these states, in order."""
        return tuple(name for i, name in enumerate(self.states) if mask >> i & 1)

    def numbers(self, group: dict[str, Any]) -> list[float | Tensor]:
        """The members of the formula's struct: as numbers, or as tensors where a device would have to be waited for."""
        found: list[float | Tensor] = []
        for key in self.options:
            value = group[key]
            kind = type(value)
            if kind is float:
                found.append(value)
            elif kind is tuple or kind is list:
                found += map(_number, value)
            else:
                found.append(_number(value))
        return found
