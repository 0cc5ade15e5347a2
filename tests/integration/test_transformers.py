"""The Hugging Face Trainer with our optimizer and loss in the place of torch's: the same losses, the same weights."""

import pytest
import torch

import fused_ml
from fused_ml import optim

transformers = pytest.importorskip("transformers", reason="the extra test-integration is not installed")
pytest.importorskip("accelerate", reason="the extra test-integration is not installed")

VOCABULARY, LENGTH, STEPS = 97, 12, 6


def model():
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def data():
    generator = torch.Generator().manual_seed(4)
    rows = torch.randint(VOCABULARY, (4 * STEPS, LENGTH), generator=generator)
    return [{"input_ids": row, "labels": row} for row in rows]


def train(folder, make_optimizer=None, **options):
    """The losses that the Trainer logs, and the weights."""
    net = model()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, max_steps=STEPS, logging_steps=1, learning_rate=0.01,
        lr_scheduler_type="cosine", save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=5,
        dataloader_pin_memory=False, max_grad_norm=0.0 if make_optimizer else 1.0, **options,
    )  # fmt: skip
    optimizers = (make_optimizer(net.parameters()), None) if make_optimizer else (None, None)
    trainer = transformers.Trainer(model=net, args=arguments, train_dataset=data(), optimizers=optimizers)
    trainer.train()
    losses = torch.tensor([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    return losses, torch.cat([p.detach().flatten() for p in net.parameters()])


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"bf16": True}], ids=str)
def test_our_optimizer_clips_within_the_step(options, tmp_path):
    expected = train(tmp_path, **options)  # clipped by torch's function
    assert expected[0][-1] < expected[0][0]

    def ours(params):
        return optim.AdamW(params, lr=0.01, weight_decay=0.0, max_grad_norm=1.0)

    with fused_ml.explaining() as found:
        seen = train(tmp_path, ours, **options)
    steps = [call for call in found.calls if call.name == "optim.AdamW"]
    assert sum(found.counts[call] for call in steps) == STEPS
    assert all(call.fused for call in steps)
    if not options:  # bfloat16: rounding hides little of a difference
        assert_same(seen, expected)
    else:
        torch.testing.assert_close(seen[0], expected[0], rtol=2e-2, atol=2e-2)


def test_patched(tmp_path):
    """The Trainer's own AdamW, and the model's own loss."""
    expected = train(tmp_path)
    with fused_ml.patch_torch(), fused_ml.explaining() as found:
        seen = train(tmp_path)
    fused = {call.name for call in found.calls if call.fused}
    assert {"optim.AdamW", "nn.functional.cross_entropy"} <= fused
    assert_same(seen, expected)
