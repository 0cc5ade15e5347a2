"""A pass of torch.compile's inductor: the kernels read 16-bit logits where a program casts them to float32 first.

``cross_entropy(head(x).float(), target)`` is how language models are written. To inductor the kernel is opaque, so that
the float32 copy would be made, read, and its gradient made and read. The kernel computes in float32 anyway: it is given
what was cast, and rounds the same gradient once, to 16 bits, with the gradient from above in it.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch._inductor import config
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

_NARROW = (torch.bfloat16, torch.float16)
_cast = torch.ops.prims.convert_element_type.default
_cross_entropy = torch.ops.fused_ml.cross_entropy.default
_FORWARD = (torch.ops.fused_ml.softmax.default, torch.ops.fused_ml.log_softmax.default)
_BACKWARD = (torch.ops.fused_ml.softmax_backward.default, torch.ops.fused_ml.log_softmax_backward.default)
_GRAD_INPUT, _STATS, _GRAD_TARGET, _GRAD_OUTPUT = 4, 5, 13, 14  # arguments of cross_entropy; all it takes are 15
_DEFAULTS = [argument.default_value for argument in _cross_entropy._schema.arguments]


class SeeThroughCasts(CustomGraphPass):
    """Rewrites the joint graph of forward and backward, after the pass that was there before."""

    def __init__(self, other: Any = None) -> None:
        self.other = other

    def __call__(self, graph: Graph) -> None:
        if self.other is not None:
            self.other(graph)
        changed = False
        for node in list(graph.nodes):
            if node.op != "call_function":
                continue
            if node.target is _cross_entropy:
                changed |= _rewrite_cross_entropy(graph, node)
            elif node.target in _FORWARD and (narrow := _narrow_source(node.args[0])) is not None:
                node.replace_input_with(node.args[0], narrow)  # the dtype of its output is said
                changed = True
            elif node.target in _BACKWARD:
                changed |= _round_in_kernel(graph, node)
        if changed:
            graph.eliminate_dead_code()

    def uuid(self) -> Any:
        if self.other is None:
            return get_hash_for_files((__file__,))
        theirs = self.other.uuid() if isinstance(self.other, CustomGraphPass) else None
        return theirs and (get_hash_for_files((__file__,)), theirs)


def install() -> None:
    """Have inductor run the pass, behind a user's own one."""
    there = config.joint_custom_pre_pass
    if isinstance(there, (list, tuple)):  # torch 2.13
        if not any(isinstance(each, SeeThroughCasts) for each in there):
            config.joint_custom_pre_pass = [*there, SeeThroughCasts()]
    elif not isinstance(there, SeeThroughCasts):
        config.joint_custom_pre_pass = SeeThroughCasts(there)


def _narrow_source(node: Any) -> Node | None:
    """What `node` casts from 16 bits to float32, or None."""
    if not isinstance(node, Node) or node.target is not _cast or node.args[1] != torch.float32:
        return None
    source = node.args[0]
    return source if isinstance(source, Node) and source.meta["val"].dtype in _NARROW else None


def _rewrite_cross_entropy(graph: Graph, node: Node) -> bool:
    narrow = _narrow_source(node.args[0])
    args = [*node.args, *_DEFAULTS[len(node.args) :]]
    if narrow is None or node.kwargs or args[_GRAD_TARGET] or _is_floating(args[1]):
        return False
    args[0] = narrow
    if not args[_GRAD_INPUT]:
        node.args = _without_defaults(args)
        return True
    grads = [user for user in node.users if user.target is operator.getitem and user.args[1] == 1]
    if len(grads) != 1:
        return False
    if args[_GRAD_OUTPUT] is None:  # computed in forward, and multiplied later: to be rounded after that
        return _move_to_backward(graph, node, args, grads[0])
    rounded = _rounding(grads[0], narrow)
    if rounded is None:
        return False
    node.args = _without_defaults(args)
    _refresh(node)
    _refresh(grads[0])
    rounded.replace_all_uses_with(grads[0])
    return True


def _rounding(node: Node, narrow: Node) -> Node | None:
    """The one user of `node`, if that casts it to the type of `narrow`."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    return user if user and user.target is _cast and user.args[1] == narrow.meta["val"].dtype else None


def _without_defaults(args: list[Any]) -> tuple[Any, ...]:
    """As torch.compile writes a call: inductor counts on it."""
    count = max(i + 1 for i, (given, default) in enumerate(zip(args, _DEFAULTS, strict=True)) if given != default)
    return tuple(args[:count])


def _is_floating(node: Any) -> bool:
    return isinstance(node, Node) and node.meta["val"].is_floating_point()


def _move_to_backward(graph: Graph, node: Node, args: list[Any], grad: Node) -> bool:
    """The gradient by a call of its own, where the one from above is known."""
    product = next(iter(grad.users)) if len(grad.users) == 1 else None
    if args[_STATS] or product is None or product.target is not torch.ops.aten.mul.Tensor:
        return False
    upstream = product.args[1] if product.args[0] is grad else product.args[0]
    rounded = _rounding(product, args[0])
    if rounded is None or not isinstance(upstream, Node) or upstream.meta["val"].dim():
        return False
    forward, backward = list(args), list(args)
    forward[_GRAD_INPUT] = False
    backward[_GRAD_OUTPUT] = upstream
    node.args = _without_defaults(forward)
    _refresh(node)
    with graph.inserting_before(product):
        again = _refresh(graph.call_function(_cross_entropy, _without_defaults(backward)))
        rounded.replace_all_uses_with(_refresh(graph.call_function(operator.getitem, (again, 1))))
    return True


def _round_in_kernel(graph: Graph, node: Node) -> bool:
    """A gradient that is cast to 16 bits at once is rounded by the kernel that computes it."""
    cast = next(iter(node.users)) if len(node.users) == 1 else None
    if node.args[-1] != torch.float32 or cast is None or cast.target is not _cast or cast.args[1] not in _NARROW:
        return False
    node.args = (*node.args[:-1], cast.args[1])
    _refresh(node)
    cast.replace_all_uses_with(node)
    return True


def _refresh(node: Node) -> Node:
    """Note what the node now computes."""
    fake = node.all_input_nodes[0].meta["val"]
    mode = (fake[0] if isinstance(fake, list) else fake).fake_mode
    args = torch.fx.map_arg(node.args, lambda n: n.meta["val"])
    with mode:
        node.meta["val"] = node.target(*args)  # type: ignore[operator]
    return node
