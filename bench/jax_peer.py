"""JAX and optax on the CPU, jitted: contestants with buffers and threads of their own.

Inputs are copied into JAX's buffers before the clock; every call waits for its result (``block_until_ready``).
An optimizer's parameters and states are donated, so that XLA updates them in place, and so is the gradient that a
``reused`` row adds to; a ``fresh`` row's gradient is a new buffer, as everyone's. XLA makes its threads when its
client is made: as many as torch has, which ``PJRT_NPROC`` asks for (a client of another size is dropped first). It may
still run small work on one thread, as torch does. Reshaping, casts and layouts are XLA's to choose, so only contiguous
rows are compared, and no backward pass alone: XLA has no such thing apart from a forward pass that keeps residuals.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.cases import BCE, CE, OPTIMIZERS, Case
from bench.functions import Inputs
from bench.optimizers import COMPARED_STEPS, EMA_DECAY, MAX_NORM, parameters
from bench.timing import Step

RULES = {"SGD": "sgd", "Adam": "adam", "AdamW": "adamw"}  # of optax
_made_for: list[int] = []  # threads of the client that is there


def takes(case: Case) -> bool:
    """Contiguous rows, in one go or forward, that have a counterpart in optax; JAX's float64 is a mode of its own."""
    if case.is_optimizer:
        return case.op in RULES and case.variant in ("fresh", "clip", "ema")
    if case.layout != "contiguous" or case.dtype == "float64":
        return False
    return case.variant in ("fresh", "reused") and case.part in ("both", "forward")


def _client(threads: int) -> None:
    """See to it that XLA's client has `threads` threads. Arrays of an earlier client are lost."""
    import jax
    from jax.extend import backend

    if _made_for == [threads]:
        return
    os.environ["PJRT_NPROC"] = str(threads)
    jax.config.update("jax_platforms", "cpu")
    backend.clear_backends()
    _made_for[:] = [threads]


def _to_jax(tensor: Tensor) -> Any:
    import jax
    import jax.numpy as jnp

    narrow = tensor.int() if tensor.dtype == torch.int64 else tensor  # JAX's integers have 32 bits
    return jax.block_until_ready(jnp.array(jax.dlpack.from_dlpack(narrow.detach().contiguous()), copy=True))


def _to_torch(array: Any) -> Tensor:
    return torch.from_dlpack(array).clone()


def _function(op: str) -> Callable[..., Any]:
    """optax's or JAX's own form of `op`, as torch reduces it."""
    import jax
    import jax.numpy as jnp
    import optax

    def nll_loss(x: Any, target: Any) -> Any:
        return -jnp.take_along_axis(x, target[:, None], axis=1).mean()

    return {
        CE: lambda x, t: optax.softmax_cross_entropy_with_integer_labels(x, t, axis=1).mean(),
        BCE: lambda x, t: optax.sigmoid_binary_cross_entropy(x, t).mean(),
        "nll_loss": nll_loss,
        "softmax": lambda x: jax.nn.softmax(x, axis=1),
        "log_softmax": lambda x: jax.nn.log_softmax(x, axis=1),
        "logsigmoid": jax.nn.log_sigmoid,
    }[op]


class JaxFunction(Step):
    """A jitted function, with its gradient unless the row is a forward pass."""

    own_threads = True

    def __init__(self, case: Case, inputs: Inputs) -> None:
        import jax

        function = _function(case.op)
        self.x = _to_jax(inputs.logits)
        self.args = tuple(_to_jax(arg) for arg in inputs.args if isinstance(arg, Tensor))
        self.cotangent = None if inputs.grad_output is None else _to_jax(inputs.grad_output)
        self.reused = case.variant == "reused"
        self.total: Any = None
        self.found: Any = None

        def both(x: Any, args: Any, cotangent: Any) -> Any:
            output, pull = jax.vjp(lambda x: function(x, *args), x)
            return output, pull(jax.numpy.ones_like(output) if cotangent is None else cotangent)[0]

        def added(x: Any, args: Any, total: Any) -> Any:
            output, gradient = both(x, args, None)
            return output, total + gradient

        if case.part == "forward":
            self.run = jax.jit(lambda x, args, _: (function(x, *args),))
        else:
            self.run = jax.jit(added, donate_argnums=2) if self.reused else jax.jit(both)

    def prepare(self) -> None:
        """Drop the last result, but for a gradient that is added to."""
        self.found = None
        if self.reused and self.total is None:
            self.total = _zeros_like(self.x)

    def call(self) -> None:
        """The function, until its result is there."""
        import jax

        self.found = jax.block_until_ready(self.run(self.x, self.args, self.total if self.reused else self.cotangent))
        if self.reused:
            self.total = self.found[1]

    def result(self) -> list[Tensor]:
        """Output, and gradient where there is one."""
        self.total = None
        self.prepare()
        self.call()
        found = [_to_torch(array) for array in self.found]
        self.found = self.total = None
        return found


def _zeros_like(array: Any) -> Any:
    """A buffer of zeros, there when this returns."""
    import jax

    return jax.block_until_ready(jax.numpy.zeros_like(array))


def _transformation(case: Case) -> Any:
    import optax

    options = dict(OPTIMIZERS[case.op])
    rule = getattr(optax, RULES[case.op])(options.pop("lr"), **options)
    return optax.chain(optax.clip_by_global_norm(MAX_NORM), rule) if case.variant == "clip" else rule


class JaxOptimizer(Step):
    """A jitted optax step that is given parameters, states and averages to overwrite."""

    own_threads = True

    def __init__(self, case: Case) -> None:
        import jax
        import optax

        rule = _transformation(case)
        params = parameters(case)
        self.grads = [_to_jax(param.grad) for param in params if param.grad is not None]
        values = [_to_jax(param) for param in params]
        averages = [_to_jax(param) for param in params] if case.variant == "ema" else []
        self.state = (values, jax.jit(rule.init)(values), averages)

        def step(state: Any, grads: Any) -> Any:
            values, inner, averages = state
            updates, inner = rule.update(grads, inner, values)
            values = optax.apply_updates(values, updates)
            if averages:
                averages = optax.incremental_update(values, averages, 1 - EMA_DECAY)
            return values, inner, averages

        self.run = jax.jit(step, donate_argnums=0)

    def call(self) -> None:
        """One step, until it is done."""
        import jax

        self.state = jax.block_until_ready(self.run(self.state, self.grads))

    def result(self) -> list[Tensor]:
        """The parameters, and their averages, after the first few steps."""
        for _ in range(COMPARED_STEPS):
            self.call()
        lists = (self.state[0], self.state[2]) if self.state[2] else (self.state[0],)
        return [torch.cat([_to_torch(array).flatten() for array in arrays]) for arrays in lists]


def build(case: Case, inputs: Any) -> Step:
    """The contestant of a row."""
    _client(torch.get_num_threads())
    return JaxOptimizer(case) if case.is_optimizer else JaxFunction(case, inputs)
