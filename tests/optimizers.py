"""The tables that the optimizers' tests fan out over, and a torch optimizer beside ours as the reference."""

import inspect

import torch

import fused_ml.optim

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# Every option of the formulas, alone and together: (optimizer, arguments).
OPTIONS = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd decay": ("SGD", {"lr": 0.1, "weight_decay": 0.3}),
    "sgd maximize decay": ("SGD", {"lr": 0.1, "weight_decay": 0.3, "maximize": True}),
    "sgd momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}),
    "sgd nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "sgd all": ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.2, "maximize": True}),
    "sgd tensor lr": ("SGD", {"lr": torch.tensor(0.125), "momentum": 0.9}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam decay": ("Adam", {"lr": 0.01, "weight_decay": 0.3}),
    "adam maximize decay": ("Adam", {"lr": 0.01, "weight_decay": 0.3, "maximize": True}),
    "adam amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True}),
    "adam betas": ("Adam", {"lr": 0.01, "betas": (0.0, 0.5), "eps": 1e-3}),
    "adam decoupled": ("Adam", {"lr": 0.01, "weight_decay": 0.3, "decoupled_weight_decay": True}),
    "adam all": (
        "Adam",
        {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.2, "amsgrad": True, "maximize": True},
    ),
    "adam tensors": (
        "Adam",
        {"lr": torch.tensor(0.0625), "betas": (torch.tensor(0.75), torch.tensor(0.875))},
    ),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw decay": ("AdamW", {"lr": 0.01, "weight_decay": 0.3}),
    "adamw all": ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "amsgrad": True, "maximize": True, "eps": 1e-3}),
    "rmsprop": ("RMSprop", {"lr": 0.001}),
    "rmsprop momentum": ("RMSprop", {"lr": torch.tensor(0.0625), "alpha": 0.5, "momentum": 0.9, "maximize": True}),
    "rmsprop centered decay": ("RMSprop", {"lr": 0.001, "alpha": 0.9, "centered": True, "weight_decay": 0.3}),
    "rmsprop all": ("RMSprop", {"eps": 0.1, "momentum": 0.5, "centered": True, "weight_decay": 0.2, "maximize": True}),
}
ALL = [case for case in OPTIONS if case.endswith(" all")]  # all options of a class together
BRIEF = ["sgd", "adamw decay", *ALL]
STATEFUL = ["sgd momentum", "adam", "adamw decay", *ALL]

# Each class, with options whose steps 16 bits can follow.
EXAMPLES = {
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "Adam": {"lr": 0.01, "eps": 1e-3},
    "AdamW": {"lr": 0.01, "eps": 1e-3},
    "RMSprop": {"lr": 0.01, "eps": 1e-3},
}

# 0 elements, 0 dimensions, whole and partial vectors, granules (256) and blocks (4096).
SHAPES = [(), (0,), (1,), (3,), (5, 7), (2, 0, 3), (8,), (17,), (64, 4), (257,), (4097,), (1, 31, 1)]


def takes(name, flags):
    """Whether torch's class has these keywords."""
    return flags.keys() <= inspect.signature(getattr(torch.optim, name)).parameters.keys()


def with_fused(cases, values=(None, True)):
    """Cases and `fused=`, of which None is not said: those that torch's classes take."""
    return [(c, fused) for c in cases for fused in values if fused is None or takes(OPTIONS[c][0], {"fused": fused})]


def said(**keywords):
    """Those that are not None."""
    return {key: value for key, value in keywords.items() if value is not None}


def here():
    """The device that tests make their tensors on: conftest.py sets it."""
    return torch.empty(0).device


def draw(shape, generator, dtype=torch.float32):
    """The same numbers on every device."""
    return torch.randn(shape, generator=generator, device="cpu").to(dtype).to(here())


def grad_scaler(**options):
    return torch.amp.GradScaler(here().type, **options)


def _sliced(x):
    buffer = torch.full((*x.shape[:-1], x.shape[-1] + 3), 777.0, dtype=x.dtype)
    buffer[..., 1:-2] = x
    return buffer[..., 1:-2]


def _every_other(x):
    buffer = torch.full((*x.shape, 2), 777.0, dtype=x.dtype)
    buffer[..., 0] = x
    return buffer[..., 0]


def _unaligned(x):
    buffer = torch.empty(x.numel() + 1, dtype=x.dtype)
    return buffer[1:].view(x.shape).copy_(x)


LAYOUTS = {
    "contiguous": lambda x: x.clone(memory_format=torch.contiguous_format),
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "channels last": lambda x: x.clone(memory_format=torch.channels_last if x.dim() == 4 else torch.preserve_format),
    "sliced": _sliced,
    "every other": _every_other,
    "unaligned": _unaligned,
}


def numbers(options):
    """Tensors as numbers: torch computes the bias corrections of tensor betas in float32."""
    return {
        key: value.item() if torch.is_tensor(value) else tuple(map(float, value)) if key == "betas" else value
        for key, value in options.items()
    }


class Pair:
    """Our optimizer, and torch's single-tensor one in float64, on the same parameters and gradients."""

    def __init__(self, case, params, reference_dtype=torch.float64, **extra):
        name, options = OPTIONS[case]
        self.ours = [p.detach().requires_grad_() for p in params]
        self.torch = [p.detach().to(reference_dtype).clone().requires_grad_() for p in params]
        self.optimizer = getattr(fused_ml.optim, name)(self.ours, **options, **said(**extra))
        self.reference = getattr(torch.optim, name)(self.torch, foreach=False, **numbers(options))
        self.generator = torch.Generator().manual_seed(7)

    def gradient(self, p):
        return draw(p.shape, self.generator, p.dtype)

    def set_gradients(self, layout=None, scale=1.0):
        for ours, reference in zip(self.ours, self.torch, strict=True):
            grad = self.gradient(ours)
            ours.grad = LAYOUTS[layout](grad * scale) if layout else grad * scale
            reference.grad = grad.to(reference.dtype)

    def step(self, times=1, layout=None):
        for _ in range(times):
            self.set_gradients(layout)
            self.optimizer.step()
            self.reference.step()
        return self

    def check(self, times=5):
        """Every parameter and state within the rounding of `times` steps."""
        assert_state_close(self.optimizer, self.reference, times)


def tolerance(dtype, steps):
    unit = torch.finfo(dtype).eps
    return {"rtol": 3 * steps * unit, "atol": 3 * steps * unit}


def assert_state_close(optimizer, reference, steps):
    mine = [p for group in optimizer.param_groups for p in group["params"]]
    theirs = [p for group in reference.param_groups for p in group["params"]]
    for p, q in zip(mine, theirs, strict=True):
        close(p, q, steps)
        state, expected = optimizer.state.get(p, {}), reference.state.get(q, {})
        assert set(state) == {key for key, value in expected.items() if value is not None}
        for key in state:
            if key == "step":
                assert state[key].item() == expected[key].item()
                assert state[key].shape == ()
            else:
                close(state[key], expected[key], steps, p.dtype)


def close(actual, expected, steps, dtype=None):
    torch.testing.assert_close(
        actual.detach().double(),
        expected.detach().double(),
        **tolerance(dtype or actual.dtype, steps),
        equal_nan=True,
    )


def random_params(dtype, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [draw(shape, generator, dtype) for shape in shapes]


def snapshot(optimizer):
    """Copies of everything that a step may change."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = {
        (i, key): value.clone()
        for i, p in enumerate(params)
        for key, value in optimizer.state.get(p, {}).items()
        if value is not None
    }
    return [p.detach().clone() for p in params], states


def assert_unchanged(optimizer, before, new_zeros=False):
    """`new_zeros`: states may have been made, and are zero."""
    params, states = snapshot(optimizer)
    new = {key: states.pop(key) for key in states.keys() - before[1].keys()}
    assert new_zeros or not new
    assert not any(value.any() for value in new.values())
    assert states.keys() == before[1].keys()
    for now, then in [*zip(params, before[0], strict=True), *((states[k], before[1][k]) for k in states)]:
        torch.testing.assert_close(now, then, rtol=0, atol=0, equal_nan=True)
