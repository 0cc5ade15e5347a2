"""Lightning's Trainer with our optimizer in the place of torch's: the same training, or the same refusal."""

import pytest
import torch

import fused_ml.optim

L = pytest.importorskip("lightning.pytorch", reason="the extra test-integration is not installed")
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


class Model(L.LightningModule):
    def __init__(self, make_optimizer):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        self.make_optimizer = make_optimizer
        self.start = [p.detach().clone() for p in self.parameters()]
        self.norms = []

    def training_step(self, batch, _):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.layers(x).float(), y)

    def configure_optimizers(self):
        optimizer = self.make_optimizer(self.parameters())
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5), "interval": "step"}]

    def on_before_optimizer_step(self, optimizer):
        self.norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters()]))


def float16(scale):
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))]}


PRECISIONS = {
    "float32": dict,
    "bfloat16": lambda: {"precision": "bf16-mixed"},
    "float16": lambda: float16(2.0**10),
    "float16, overflow first": lambda: float16(2.0**30),  # the scaler halves it until a step goes through
}


def train(module, name, precision, clip, tmp_path, **options):
    torch.manual_seed(3)
    model = Model(lambda params: getattr(module, name)(params, lr=0.05, **options))
    data = torch.utils.data.TensorDataset(torch.randn(96, 6), torch.randint(3, (96,)))
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        gradient_clip_val=clip,
        **PRECISIONS[precision](),
    )
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=4))
    return model


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_training_is_as_with_torchs_optimizer(name, precision, clip, tmp_path):
    ours, theirs = (train(module, name, precision, clip, tmp_path) for module in (fused_ml.optim, torch.optim))
    assert type(ours.optimizers().optimizer) is getattr(fused_ml.optim, name)
    rtol = 1e-5 if precision == "float32" else 1e-3
    for p, q, start in zip(ours.parameters(), theirs.parameters(), ours.start, strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=1e-5)
        assert not torch.allclose(p, start)
    torch.testing.assert_close(torch.stack(ours.norms), torch.stack(theirs.norms), rtol=1e-2, atol=1e-4, equal_nan=True)
    assert torch.stack(ours.norms).isfinite().all() == ("overflow" not in precision)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_fused_optimizer_is_refused_as_torchs(name, tmp_path):
    """Clipping needs unscaled gradients, which a step that unscales by itself does not have in time."""
    for module in (fused_ml.optim, torch.optim):
        with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
            train(module, name, "float16", 0.1, tmp_path, fused=True)


def test_clipping_within_the_step_needs_no_trainer(tmp_path):
    """`max_grad_norm` in place of gradient_clip_val, whose norm is that of the unscaled gradients."""
    ours = train(fused_ml.optim, "AdamW", "float16", None, tmp_path, max_grad_norm=0.1)
    theirs = train(torch.optim, "AdamW", "float16", 0.1, tmp_path)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
