"""Calls through every operator with a tensor argument that the package really makes."""

import torch
from rows import CALLS as CALLS_OF_ROWS
from rows import name_of_options

import fused_ml.nn.functional as F

X, MAP = torch.randn(6, 5), torch.randn(2, 5, 3, 2)
INDEX, MAP_INDEX = torch.tensor([0, 4, -100, 1, 2, 2]), torch.randint(5, (2, 3, 2))
SPREAD, BINARY = torch.softmax(torch.randn(6, 5), 1), torch.rand(6, 5)
WEIGHT, ROWS, BYTES = torch.rand(5), torch.rand(6), INDEX.to(torch.uint8)

CALLS = {
    "cross_entropy": lambda x: F.cross_entropy(x, INDEX),
    "cross_entropy sum": lambda x: F.cross_entropy(x, INDEX, WEIGHT, label_smoothing=0.1, reduction="sum"),
    "cross_entropy none": lambda x: F.cross_entropy(x, BYTES, ignore_index=156, reduction="none"),
    "cross_entropy probabilities": lambda x: F.cross_entropy(x, SPREAD, WEIGHT),
    "cross_entropy by target": lambda x: F.cross_entropy(x, SPREAD.clone().requires_grad_()),
    "cross_entropy map": lambda x: F.cross_entropy(MAP * x[0].view(5, 1, 1), MAP_INDEX),
    "cross_entropy channels_last": lambda x: F.cross_entropy(
        (MAP * x[0].view(5, 1, 1)).contiguous(memory_format=torch.channels_last), MAP_INDEX, reduction="none"
    ),
    "cross_entropy strided": lambda x: F.cross_entropy(x.t().contiguous().t()[::2], INDEX[::2]),
    "cross_entropy one position": lambda x: F.cross_entropy(x[0], INDEX[0]),
    "cross_entropy extras": lambda x: F.cross_entropy(
        x, INDEX, z_loss=0.1, softcap=3.0, sample_weight=ROWS, normalizer=5.0, out_dtype=torch.float64
    ),
    "cross_entropy stats": lambda x: F.cross_entropy(x, INDEX, return_stats=True)[0],
    "cross_entropy in place": lambda x: F.cross_entropy(x * 1, INDEX, inplace_backward=True),
    "nll_loss": lambda x: F.nll_loss(x, INDEX, WEIGHT),
    "nll_loss none": lambda x: F.nll_loss(x, INDEX.int(), reduction="none"),
    "nll_loss map": lambda x: F.nll_loss(MAP * x[0].view(5, 1, 1), MAP_INDEX, reduction="sum"),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "log_softmax dim 0": lambda x: F.log_softmax(x, 0, dtype=torch.float64),
    "softmax": lambda x: F.softmax(x, 1),
    "softmax dim 0": lambda x: F.softmax(x.t(), 0, dtype=torch.bfloat16),
    "softmin": lambda x: F.softmin(x, -1),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, BINARY),
    "bce weights": lambda x: F.binary_cross_entropy_with_logits(
        x, BINARY.clone().requires_grad_(), weight=ROWS[:, None], pos_weight=WEIGHT, reduction="none"
    ),
    "bce extras": lambda x: F.binary_cross_entropy_with_logits(
        x,
        BINARY.round(),
        focal_gamma=2.0,
        focal_alpha=0.25,
        label_smoothing=0.1,
        ignore_index=1,
        reduction="sum",
    ),
    **{
        f"{row} {name_of_options(options)}{form}": lambda x, row=row, options=options, view=view: row.call(
            F, view(x), options
        )
        for row, options in CALLS_OF_ROWS
        for form, view in {"": lambda x: x, " strided": torch.t}.items()
    },
}
