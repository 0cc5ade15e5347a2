"""The formulas in float64, loss and gradient both written out from the mathematics.

Nothing here calls fused_ml, nor the functions of torch that it replaces. Each function also returns the
*magnitude* of its results: the sum of the absolute values of the terms that make them up, to which rounding
errors are relative.
"""

from typing import NamedTuple

import torch

INF = float("inf")


class Reference(NamedTuple):
    loss: torch.Tensor
    gradient: torch.Tensor  # with respect to the input, for the given upstream gradient
    loss_magnitude: torch.Tensor
    gradient_magnitude: torch.Tensor
    target_gradient: torch.Tensor | None = None


class Row(NamedTuple):
    """What the softmax of every row is made of; classes are the last dimension."""

    lse: torch.Tensor  # [rows]
    nll: torch.Tensor  # [rows, classes]  lse - x, accurate where the class is nearly certain
    p: torch.Tensor  # [rows, classes]
    rest: torch.Tensor  # [rows, classes]  1 - p, likewise


def softmax_rows(x):
    """x: [rows, classes] float64. The largest class is told apart from the sum of the others."""
    top, where = x.max(-1, keepdim=True)
    e = torch.exp(x - torch.where(top.isinf() & (top < 0), 0.0, top))
    others = e.scatter(-1, where, 0.0).sum(-1, keepdim=True)
    total = others + e.gather(-1, where)
    lse = (top + torch.log(total)).squeeze(-1)
    nll = (torch.log(total) + (top - x)).scatter(-1, where, torch.log1p(others))
    p = e / total
    rest = (1 - p).scatter(-1, where, others / total)
    return Row(lse, nll, p, rest)


def rows_last(x):
    """[C] or [N, C, d1, ...] -> [rows, C]"""
    return x.unsqueeze(0) if x.dim() == 1 else x.movedim(1, -1).reshape(-1, x.shape[1])


def rows_back(rows, like):
    """The inverse of `rows_last`."""
    if like.dim() == 1:
        return rows.squeeze(0)
    return rows.view(like.shape[0], *like.shape[2:], like.shape[1]).movedim(-1, 1)


def class_weights_of_rows(x, target, weight, ignore_index, label_smoothing):
    """q: [rows, classes], so that loss = sum_j q_j (lse - x_j); each row's denominator; which rows count."""
    rows, classes = rows_last(x).shape
    w = torch.ones(classes, dtype=torch.float64, device="cpu") if weight is None else weight.double().cpu()
    if target.is_floating_point():
        q = (rows_last(target.double()) * (1 - label_smoothing) + label_smoothing / classes) * w
        return q, torch.ones(rows, dtype=torch.float64, device="cpu"), torch.ones(rows, dtype=torch.bool, device="cpu")
    t = target.reshape(-1).long()
    valid = t != ignore_index
    chosen = torch.where(valid, t, 0)
    q = torch.full((rows, classes), label_smoothing / classes, dtype=torch.float64, device="cpu")
    q.scatter_add_(1, chosen[:, None], torch.full((rows, 1), 1 - label_smoothing, dtype=torch.float64, device="cpu"))
    return q * w * valid[:, None], w[chosen] * valid, valid


def reduce_rows(loss, scale, denominators, reduction, normalizer, upstream):
    """The reduced loss, and the factor of each row's gradient."""
    if reduction == "none":
        return loss, upstream.reshape(-1).double().cpu() * scale
    total = loss.sum()
    if reduction == "sum":
        return total, upstream.double().cpu() * scale
    divisor = (
        denominators.sum() if normalizer is None else torch.as_tensor(normalizer, dtype=torch.float64, device="cpu")
    )
    return total / divisor, upstream.double().cpu() * scale / divisor


def cross_entropy(
    input, target, upstream, *, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean",
    z_loss=0.0, softcap=None, sample_weight=None, normalizer=None,
):  # fmt: skip
    input, target = input.detach().cpu().double(), target.detach().cpu()
    raw = rows_last(input)
    x = raw if softcap is None else softcap * torch.tanh(raw / softcap)
    slope = torch.ones_like(raw) if softcap is None else 1 - torch.tanh(raw / softcap) ** 2
    q, denominators, valid = class_weights_of_rows(input, target, weight, ignore_index, label_smoothing)
    row = softmax_rows(torch.where(valid[:, None], x, 0.0))
    share = q.sum(-1, keepdim=True)
    scale = torch.ones_like(denominators) if sample_weight is None else sample_weight.double().cpu().reshape(-1)
    z = z_loss * valid.double()
    if reduction == "mean" and normalizer is None:  # averaged over the rows, whatever the class weights
        z = z * ((denominators * scale).sum() / (valid.double() * scale).sum()).nan_to_num(1, 1, 1)
    loss = torch.where(q == 0, 0.0, q * row.nll).sum(-1) + torch.where(z == 0, 0.0, z * row.lse**2)
    tilt = torch.where(z == 0, 0.0, 2 * z * row.lse)[:, None]
    spread = slope if softcap is None else slope + 0.125  # 1 - tanh^2 cancels: its error is absolute
    gradient = (row.p * (share - q) - q * row.rest + tilt * row.p) * slope
    blurred = label_smoothing > 0 or target.is_floating_point() or softcap is not None
    size = row.p * share + q if blurred else row.p * (share - q) + q * row.rest
    shape = () if reduction != "none" else input.shape[:1] * (input.dim() > 1) + input.shape[2:]
    value, factor = reduce_rows(loss * scale, scale, denominators * scale, reduction, normalizer, upstream)
    coarse = loss + (q * x.abs()).nan_to_num(0, 0, 0).sum(-1) * blurred
    coarse = coarse + (z * row.lse.abs() * row.lse.abs().clamp(min=1)).nan_to_num()
    size_of_loss, _ = reduce_rows(coarse * scale, scale, denominators * scale, reduction, normalizer, upstream)
    full = (factor.expand(len(loss)) if factor.dim() == 0 else factor)[:, None]
    dead = ~valid[:, None]
    return Reference(
        value.reshape(shape),
        rows_back(torch.where(dead, 0.0, gradient * full), input),
        size_of_loss.reshape(shape).abs(),
        rows_back(torch.where(dead, 0.0, (size + tilt.abs() * row.p) * spread * full).abs(), input),
    )


def log_softmax(input, dim, upstream):
    """Value, gradient, and the magnitudes of both."""
    x, g = input.detach().cpu().double().movedim(dim, -1), upstream.cpu().double().movedim(dim, -1)
    row = softmax_rows(x)
    total = g.sum(-1, keepdim=True)
    gradient = g * row.rest - row.p * (total - g)
    size = g.abs() + row.p * g.abs().sum(-1, keepdim=True)
    return tuple(t.movedim(-1, dim) for t in (-row.nll, gradient, row.nll, size))


def softmax(input, dim, upstream, sign=1):
    x, g = input.detach().cpu().double().movedim(dim, -1) * sign, upstream.cpu().double().movedim(dim, -1)
    p = softmax_rows(x).p
    gradient = sign * p * (g - (p * g).sum(-1, keepdim=True))
    size = p * (g.abs() + (p * g.abs()).sum(-1, keepdim=True))
    return tuple(t.movedim(-1, dim) for t in (p, gradient, p, size))


def softplus(x):
    """log(1 + e^x), finite for every finite x."""
    return torch.clamp(x, min=0) + torch.log1p(torch.exp(-x.abs()))


def logsigmoid(input, upstream):
    x, g = input.detach().cpu().double(), upstream.cpu().double()
    return -softplus(-x), g * torch.sigmoid(-x)


def bce_terms(x, t, pos_weight):
    """Cross entropy of each element and its derivatives by x and t; 0 * inf counts as 0."""
    p, rest = torch.sigmoid(x), torch.sigmoid(-x)
    own, other = pos_weight * softplus(-x), softplus(x)
    ce = torch.where(t == 0, 0.0, t * own) + torch.where(t == 1, 0.0, (1 - t) * other)
    return ce, (1 - t) * p - pos_weight * t * rest, own - other


def binary_cross_entropy_with_logits(
    input, target, upstream, *, weight=None, pos_weight=None, reduction="mean",
    focal_gamma=0.0, focal_alpha=None, label_smoothing=0.0, ignore_index=None,
):  # fmt: skip
    x, raw = input.detach().cpu().double(), target.detach().cpu().double()
    keep = torch.ones_like(raw, dtype=torch.bool) if ignore_index is None else raw != ignore_index
    x, raw = torch.where(keep, x, 0.0), torch.where(keep, raw, 0.0)
    t = raw * (1 - label_smoothing) + label_smoothing / 2
    w = torch.ones((), dtype=torch.float64, device="cpu") if weight is None else weight.double().cpu()
    pw = torch.ones((), dtype=torch.float64, device="cpu") if pos_weight is None else pos_weight.double().cpu()
    ce, by_x, by_t = bce_terms(x, t, pw)
    p, rest = torch.sigmoid(x), torch.sigmoid(-x)
    miss = p * (1 - t) + rest * t  # 1 - p_t
    power = miss**focal_gamma
    slope = focal_gamma * miss ** (focal_gamma - 1) if focal_gamma else torch.zeros_like(miss)
    alpha = 1.0 if focal_alpha is None else focal_alpha * t + (1 - focal_alpha) * (1 - t)
    alpha_by_t = 0.0 if focal_alpha is None else 2 * focal_alpha - 1
    loss = w * alpha * power * ce
    by_miss = w * alpha * slope * ce
    gradient = w * alpha * power * by_x + by_miss * (1 - 2 * t) * p * rest
    size = (w * alpha * power * ((1 - t) * p + pw * t * rest)).abs() + (by_miss * p * rest).abs()
    by_target = w * (alpha * power * by_t + alpha_by_t * power * ce) + by_miss * (rest - p)
    divisor = keep.sum() if reduction == "mean" else 1
    factor = torch.where(keep, upstream.cpu().double() / divisor, 0.0)
    loss = torch.where(keep, loss, 0.0)
    reduced = loss if reduction == "none" else loss.sum() / divisor
    return Reference(
        reduced, gradient * factor, reduced.abs(), (size * factor).abs(),
        by_target * (1 - label_smoothing) * factor,
    )  # fmt: skip


def gelu(x, approximate="none"):
    """Gelu of float64, the lower tail too: arguments of exponentials are exact, or small.

    torch's own takes 1 + erf(x / sqrt(2)), and 1 + tanh(u), of which nothing is left there.
    """
    if approximate == "none":
        t = x.abs().clamp(max=100)
        near = t.detach().float().double()  # its square is exact
        bell = torch.exp(-near * near / 2) * torch.exp((near - t) * (near + t) / 2)
        tail = bell * torch.special.erfcx(t * 0.5**0.5) / 2
        return x * torch.where(x < 0, tail, 1 - tail)
    t = x.abs().clamp(max=100)
    near = (t.detach().float().view(torch.int32) >> 13 << 13).view(torch.float32).double()  # 11 bits: three make 33
    linear, cubic = 1.5957691216057307, 0.071354816272600249
    short = [round(k * 2**16) / 2**16 for k in (linear, cubic)]
    rest = (linear - short[0]) * near + (cubic - short[1]) * near**3
    rest = rest + (t - near) * (linear + cubic * (t * t + t * near + near * near)) - 1e-16 * near
    e = torch.exp(-short[0] * near) * torch.exp(-short[1] * near**3) * torch.exp(-rest)
    return x * torch.where(x < 0, e, 1) / (1 + e)
