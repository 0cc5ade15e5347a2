"""First and second derivatives against finite differences, in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import fused_ml.nn.functional as F

TARGET = torch.tensor([2, 0, -100, 3])
MAP_TARGET = torch.tensor([[0, 2], [1, -100]])
SPREAD = torch.softmax(torch.arange(16.0, dtype=torch.float64).view(4, 4).sin(), 1)
BINARY = torch.tensor([[1.0, 0.0, 0.3, 0.9], [0.0, 1.0, 0.5, 1.0], [0.2, 0.8, 1.0, 0.0], [1.0, 1.0, 0.0, 0.6]]).double()
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.25], dtype=torch.float64)
ROWS = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64)

CROSS_ENTROPY = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "weight": {"weight": WEIGHT},
    "smoothing": {"label_smoothing": 0.1},
    "weight, smoothing, none": {"weight": WEIGHT, "label_smoothing": 0.1, "reduction": "none"},
    "z_loss": {"z_loss": 0.1},
    "softcap": {"softcap": 2.0},
    "sample_weight": {"sample_weight": ROWS},
    "normalizer": {"normalizer": 7.0},
    "everything": {
        "weight": WEIGHT, "label_smoothing": 0.1, "z_loss": 0.1, "softcap": 2.0, "sample_weight": ROWS,
        "normalizer": 3.0,
    },
}  # fmt: skip
BCE = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "weight": {"weight": ROWS[:, None] + 0.1},
    "pos_weight": {"pos_weight": WEIGHT},
    "focal": {"focal_gamma": 2.0, "focal_alpha": 0.25},
    "focal 1.5": {"focal_gamma": 1.5},
    "smoothing": {"label_smoothing": 0.2},
    "ignore_index": {"ignore_index": 0.3},
    "everything": {
        "weight": WEIGHT, "pos_weight": WEIGHT, "focal_gamma": 2.0, "focal_alpha": 0.25,
        "label_smoothing": 0.2, "ignore_index": 1, "reduction": "none",
    },
}  # fmt: skip


def logits(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def check(function, *inputs):
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("option", [*CROSS_ENTROPY])
def test_cross_entropy_with_class_indices(option):
    check(lambda x: F.cross_entropy(x, TARGET, **CROSS_ENTROPY[option]), logits(4, 4))


@pytest.mark.parametrize("option", [*CROSS_ENTROPY])
def test_cross_entropy_with_probabilities(option):
    check(lambda x: F.cross_entropy(x, SPREAD, **CROSS_ENTROPY[option]), logits(4, 4))


@pytest.mark.parametrize("option", ["plain", "none", "smoothing"])
@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
def test_cross_entropy_by_its_target(option):
    target = SPREAD.clone().requires_grad_()
    check(lambda x, t: F.cross_entropy(x, t, **CROSS_ENTROPY[option]), logits(4, 4), target)


@pytest.mark.parametrize("option", ["plain", "none", "z_loss", "smoothing"])
def test_cross_entropy_with_classes_not_last(option):
    check(lambda x: F.cross_entropy(x, MAP_TARGET, **CROSS_ENTROPY[option]), logits(2, 3, 2))
    check(lambda x: F.cross_entropy(x, TARGET[0], **CROSS_ENTROPY[option]), logits(4))


def test_cross_entropy_of_a_strided_view():
    check(lambda x: F.cross_entropy(x.t()[:, ::2], TARGET.clamp(max=1)), logits(4, 4))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_nll_loss(weight, reduction):
    check(lambda x: F.nll_loss(x, TARGET, weight, reduction=reduction), logits(4, 4))
    if weight is None:
        check(lambda x: F.nll_loss(x, MAP_TARGET, reduction=reduction), logits(2, 3, 2))


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("name", ["log_softmax", "softmax", "softmin"])
def test_softmax_family(name, dim):
    check(lambda x: getattr(F, name)(x, dim), logits(2, 3, 4))


def test_logsigmoid():
    check(F.logsigmoid, logits(3, 5))


@pytest.mark.parametrize("option", [*BCE])
def test_binary_cross_entropy_with_logits(option):
    check(lambda x: F.binary_cross_entropy_with_logits(x, BINARY, **BCE[option]), logits(4, 4))


@pytest.mark.parametrize("option", [name for name in BCE if name not in ("ignore_index", "everything")])
def test_binary_cross_entropy_with_logits_by_its_target(option):
    """Targets well inside (0, 1): the formula has no kink there."""
    target = (BINARY * 0.8 + 0.1).requires_grad_()
    check(lambda x, t: F.binary_cross_entropy_with_logits(x, t, **BCE[option]), logits(4, 4), target)


def test_gradient_penalty():
    """A loss made of gradients, as in a WGAN's penalty or in MAML, trains."""
    results = []
    for module in (F, torch.nn.functional):
        torch.manual_seed(0)
        x = logits(4, 4)
        (gradient,) = torch.autograd.grad(module.cross_entropy(x, TARGET), x, create_graph=True)
        results.append(torch.autograd.grad(gradient.square().sum(), x)[0])
    torch.testing.assert_close(*results)
