"""The parameters of models as their optimizers see them: lists of tensor shapes."""

from __future__ import annotations

Shapes = list[tuple[int, ...]]


def resnet50() -> Shapes:
    """The 161 tensors of ResNet-50 (He et al., 2015, arXiv:1512.03385): 25,557,032 parameters."""
    shapes: Shapes = []

    def convolution(inputs: int, outputs: int, size: int) -> None:
        shapes.extend([(outputs, inputs, size, size), (outputs,), (outputs,)])  # and its batch norm

    convolution(3, 64, 7)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolution(inputs, width, 1)
            convolution(width, width, 3)
            convolution(width, 4 * width, 1)
            if block == 0:
                convolution(inputs, 4 * width, 1)  # the shortcut
            inputs = 4 * width
    return [*shapes, (1000, inputs), (1000,)]


def gpt2_small() -> Shapes:
    """The 148 tensors of GPT-2 small (Radford et al., 2019), whose head is its embedding: 124,439,808 parameters."""
    width = 768
    shapes: Shapes = [(50257, width), (1024, width)]
    for _ in range(12):
        shapes += [(width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)]
        shapes += [(width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [*shapes, (width,), (width,)]


def llama_block() -> Shapes:
    """The 9 tensors of one block of Llama 3.2 1B (2024, arXiv:2407.21783): 60,821,504 parameters."""
    width, heads, hidden = 2048, 512, 8192
    attention: Shapes = [(width, width), (heads, width), (heads, width), (width, width)]
    return [*attention, (hidden, width), (hidden, width), (width, hidden), (width,), (width,)]


MODELS = {"resnet50": resnet50, "gpt2-small": gpt2_small, "llama-block": llama_block}
