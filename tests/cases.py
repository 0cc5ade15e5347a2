"""The tables that the tests fan out over: layouts, dtypes, targets, options."""

import torch

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
REDUCTIONS = ("mean", "sum", "none")
INDEX_TARGETS = (torch.uint8, torch.int32, torch.int64)


def name_of(value):
    """A short name for a test id."""
    return str(value).replace("torch.", "") if isinstance(value, (torch.dtype, str, int)) else None


def columns(draw, rows, classes, step):
    return draw(rows, 3 + classes * step)[:, 3 : 3 + classes * step : step]


def off_by_one(draw, *shape):
    """Storage that starts at an address that is no multiple of any vector."""
    return draw(1 + torch.Size(shape).numel())[1:].view(shape)


SMALL_LAYOUTS = {
    "C": lambda draw: draw(7),
    "N,C": lambda draw: draw(5, 7),
    "one class": lambda draw: draw(4, 1),
    "one row": lambda draw: draw(1, 9),
    "N,C,d": lambda draw: draw(3, 5, 6),
    "N,C,H,W": lambda draw: draw(2, 5, 4, 3),
    "N,C,D,H,W": lambda draw: draw(2, 3, 2, 4, 3),
    "channels_last": lambda draw: draw(2, 5, 4, 3).contiguous(memory_format=torch.channels_last),
    "channels_last one class": lambda draw: draw(2, 1, 4, 3).contiguous(memory_format=torch.channels_last),
    "N,T,C to N,C,T": lambda draw: draw(2, 6, 9).transpose(1, 2),
    "H,W,N,C to N,C,H,W": lambda draw: draw(4, 3, 2, 5).permute(2, 3, 0, 1),
    "expanded rows": lambda draw: draw(1, 9).expand(6, 9),
    "expanded classes": lambda draw: draw(6, 1).expand(6, 9),
    "expanded positions": lambda draw: draw(2, 5, 1, 3).expand(2, 5, 4, 3),
    "sliced columns": lambda draw: columns(draw, 6, 9, 1),
    "every other column": lambda draw: columns(draw, 6, 9, 2),
    "sliced rows": lambda draw: draw(12, 9)[1::2],
    "sliced channels": lambda draw: draw(2, 9, 4, 3)[:, 2:7],
    "transposed": lambda draw: draw(9, 6).t(),
    "unaligned": lambda draw: off_by_one(draw, 6, 17),
    "no rows": lambda draw: draw(0, 9),
    "no positions": lambda draw: draw(2, 9, 0),
}
WIDTH_LAYOUTS = {
    **{
        f"{c} classes": (lambda draw, c=c: draw(3, c))
        for c in (*range(2, 18), 31, 33, 63, 64, 65, 80, 81, 129, 160, 161, 257, 300)
    },
    **{f"{c} channels": (lambda draw, c=c: draw(2, c, 35)) for c in (2, 3, 8, 17, 64)},
    "17 positions": lambda draw: draw(2, 10, 17),
    "1000 classes": lambda draw: draw(17, 1000),
    "2049 classes": lambda draw: draw(5, 2049),
    "5000 classes": lambda draw: draw(3, 5000),
}
LARGE_LAYOUTS = {
    "70000 rows of 3": lambda draw: draw(70000, 3),
    "20000 rows of 10, transposed": lambda draw: draw(10, 20000).t(),
    "segmentation": lambda draw: draw(2, 21, 64, 65),
    "segmentation, channels_last": lambda draw: draw(2, 21, 64, 65).contiguous(memory_format=torch.channels_last),
    "4097 rows of 33": lambda draw: draw(4097, 33),
    "one enormous row": lambda draw: draw(1, 2_000_003),
    "one enormous row, no batch": lambda draw: draw(300_007),
}
LAYOUTS = {**SMALL_LAYOUTS, **WIDTH_LAYOUTS, **LARGE_LAYOUTS}

# Broadcasting and strides of elementwise functions: shapes of input, and views that keep the values apart.
POINTWISE_LAYOUTS = {
    "0-d": lambda draw: draw(),
    **{f"{n} elements": (lambda draw, n=n: draw(n)) for n in (0, 1, 2, 7, 15, 16, 17, 31, 33, 64, 1000)},
    "matrix": lambda draw: draw(5, 7),
    "channels_last": lambda draw: draw(2, 5, 4, 3).contiguous(memory_format=torch.channels_last),
    "transposed": lambda draw: draw(9, 6).t(),
    "permuted": lambda draw: draw(4, 3, 5).permute(2, 0, 1),
    "expanded": lambda draw: draw(1, 9).expand(6, 9),
    "every other column": lambda draw: columns(draw, 6, 9, 2),
    "unaligned": lambda draw: off_by_one(draw, 6, 17),
    "no elements": lambda draw: draw(3, 0, 2),
    "large": lambda draw: draw(37, 1025),
    "large, transposed": lambda draw: draw(210, 190).t(),
}


def drawer(dtype, device, scale=3.0):
    """Normal numbers of `dtype`."""
    return lambda *shape: (torch.randn(shape, dtype=torch.float64, device="cpu") * scale).to(device, dtype)


def target_shape(input):
    return input.shape[:1] * (input.dim() > 1) + input.shape[2:]


def classes_of(input):
    return input.shape[0 if input.dim() == 1 else 1]


def make_target(input, kind=torch.int64):
    """A target for a cross entropy of `input`: of an integer dtype, or "probabilities"."""
    if kind == "probabilities":
        dim = 0 if input.dim() == 1 else 1
        logits = torch.randn(input.shape, dtype=torch.float64, device="cpu")
        return torch.softmax(logits, dim).to(input.device, input.dtype)
    most = min(classes_of(input), 255 if kind == torch.uint8 else 2**31)
    return torch.randint(0, max(most, 1), target_shape(input), device=input.device).to(kind)


def class_weight(input, zeros=False):
    """Weights of the classes; every third one 0 on request."""
    weight = torch.rand(classes_of(input), dtype=torch.float64, device="cpu") + 0.1
    if zeros:
        weight[1::3] = 0
    return weight.to(input.device, input.dtype)


# Options of torch's cross entropy: keywords, made from the input.
OPTIONS = {
    "plain": lambda x: {},
    "weight": lambda x: {"weight": class_weight(x)},
    "zero weights": lambda x: {"weight": class_weight(x, zeros=True)},
    "ignore_index": lambda x: {"ignore_index": 1},
    "label_smoothing": lambda x: {"label_smoothing": 0.1},
    "all smoothing": lambda x: {"label_smoothing": 1.0},
    "weight, ignore_index": lambda x: {"weight": class_weight(x), "ignore_index": 2},
    "weight, label_smoothing": lambda x: {"weight": class_weight(x), "label_smoothing": 0.2},
    "weight, ignore_index, label_smoothing": lambda x: {
        "weight": class_weight(x, zeros=True), "ignore_index": 0, "label_smoothing": 0.3,
    },
}  # fmt: skip


def sample_weight(x):
    """One weight for each row."""
    return torch.rand(target_shape(x), dtype=torch.float64, device="cpu").to(x.device, torch.float32)


# This package's own options.
EXTRAS = {
    "z_loss": lambda x: {"z_loss": 1e-2},
    "softcap": lambda x: {"softcap": 5.0},
    "sample_weight": lambda x: {"sample_weight": sample_weight(x)},
    "normalizer": lambda x: {"normalizer": 7.5},
    "normalizer tensor": lambda x: {"normalizer": torch.tensor(3.0, device=x.device)},
    "z_loss, softcap": lambda x: {"z_loss": 0.1, "softcap": 3.0},
    "z_loss, weight, ignore_index": lambda x: {"z_loss": 0.1, "weight": class_weight(x), "ignore_index": 1},
    "sample_weight, weight": lambda x: {"sample_weight": sample_weight(x), "weight": class_weight(x)},
    "sample_weight, ignore_index, z_loss": lambda x: {
        "sample_weight": sample_weight(x), "ignore_index": 2, "z_loss": 0.05,
    },
    "everything": lambda x: {
        "sample_weight": sample_weight(x), "ignore_index": 0, "z_loss": 0.05, "softcap": 4.0,
        "weight": class_weight(x), "label_smoothing": 0.15, "normalizer": 11.0,
    },
}  # fmt: skip
