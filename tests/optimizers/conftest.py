"""Where optimizers are tested."""

import pytest


@pytest.fixture(autouse=True)
def on_the_device(device):
    """Their tests make tensors without saying where."""
    if device.type == "cpu":
        yield
        return
    with device:
        yield
