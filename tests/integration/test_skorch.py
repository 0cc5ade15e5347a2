"""skorch trains the same with torch's names, with torch's names patched, and with the fused ones.

Its classifier takes the logarithm of the module's output if the criterion is a torch.nn.NLLLoss, and else does not.
"""

import pytest
import torch

import fused_ml

# No part of the project needs skorch: the file runs where it is installed.
skorch = pytest.importorskip("skorch", reason="skorch is not installed")


def train(criterion, optimizer, probabilities):
    """The losses of each epoch, and the accuracy, of a classifier of three clouds of points."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(3, (300,), generator=generator)
    x = torch.randn(300, 4, generator=generator) + 2.0 * torch.nn.functional.one_hot(targets, 4)
    torch.manual_seed(0)
    classifier = skorch.NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(1) if probabilities else torch.nn.Identity()),
        criterion=criterion,
        optimizer=optimizer,
        lr=0.1,
        max_epochs=5,
        batch_size=32,
        train_split=None,
        verbose=0,
    )
    classifier.fit(x, targets)
    return torch.tensor(classifier.history[:, "train_loss"]), (classifier.predict(x) == targets.numpy()).mean()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("kind", ["class", "object"])
@pytest.mark.parametrize("criterion", ["NLLLoss", "CrossEntropyLoss"])
def test_the_same_training(criterion, kind, optimizer):
    def names(nn, optim):
        cls = getattr(nn, criterion)
        return cls if kind == "class" else cls(reduction="sum"), getattr(optim, optimizer)

    def check(names):
        losses, accuracy = train(*names, criterion == "NLLLoss")
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
        assert accuracy == expected_accuracy

    before = names(torch.nn, torch.optim)
    expected, expected_accuracy = train(*before, criterion == "NLLLoss")
    assert expected_accuracy > 0.8
    with fused_ml.patch_torch():
        check(before)
        check(within := names(torch.nn, torch.optim))
    check(within)
    check(names(fused_ml.nn, fused_ml.optim))
