"""timm's models, groups and factory with our optimizer and loss in the place of torch's: the same weights."""

import pytest
import torch

import fused_ml
from fused_ml import nn, optim

# timm imports torchvision, whose wheels need the torch of the same build: no part of test-integration.
timm = pytest.importorskip("timm", reason="timm is not installed")
from timm.loss import LabelSmoothingCrossEntropy  # noqa: E402
from timm.optim import create_optimizer_v2, param_groups_weight_decay  # noqa: E402

ADAM = {"lr": 1e-3, "eps": 1e-2}  # so that a gradient of nearly 0 does not make a whole step of its sign


def train(make, criterion, steps=4):
    torch.manual_seed(1)
    model = timm.create_model("resnet10t", num_classes=5, pretrained=False)
    optimizer = make(model)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        images = torch.randn(4, 3, 32, 32, generator=generator)
        labels = torch.randint(5, (4,), generator=generator)
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def by_groups(module, name, **options):
    return lambda model: getattr(module, name)(param_groups_weight_decay(model, 0.05), **options)


@pytest.mark.parametrize(("name", "options"), [("AdamW", ADAM), ("SGD", {"lr": 0.01, "momentum": 0.9})])
def test_our_optimizer_on_its_groups(name, options):
    expected = train(by_groups(torch.optim, name, **options), torch.nn.CrossEntropyLoss(label_smoothing=0.1))
    with fused_ml.explaining() as found:
        seen = train(by_groups(optim, name, **options), nn.CrossEntropyLoss(label_smoothing=0.1))
    assert {call.name for call in found.calls if call.fused} == {f"optim.{name}", "nn.functional.cross_entropy"}
    assert all(call.fused for call in found.calls)
    torch.testing.assert_close(seen, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(("opt", "options"), [("adamw", ADAM), ("adam", ADAM), ("sgd", {"lr": 1e-3})])
def test_its_factory_patched(opt, options):
    """Its registry bound torch's classes when it was imported; their steps are fused within the block."""

    def make(model):
        return create_optimizer_v2(model, opt=opt, weight_decay=0.05, **options)

    expected = train(make, LabelSmoothingCrossEntropy())
    with fused_ml.patch_torch(), fused_ml.explaining() as found:
        seen = train(make, LabelSmoothingCrossEntropy())
    assert any(call.name.startswith("optim.") and call.fused for call in found.calls)
    torch.testing.assert_close(seen, expected, rtol=1e-3, atol=2e-4)
