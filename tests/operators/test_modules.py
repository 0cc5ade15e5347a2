"""The fused modules are torch's with another forward: signatures, state, pickles, and one node in torch.fx's graphs."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from rows import PUBLIC

import fused_ml
import fused_ml.nn
import fused_ml.nn.functional

MODULES = fused_ml.nn.FUSED
X, CLASSES = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 4, 2, 1])
MADE = {
    "CrossEntropyLoss": [{}, {"label_smoothing": 0.1}, {"reduction": "sum", "ignore_index": 3}],
    "NLLLoss": [{}, {"reduction": "none"}],
    "LogSoftmax": [{}, {"dim": 1}],
    "Softmax": [{}, {"dim": -1}],
    "Softmin": [{}, {"dim": 0}],
    "BCEWithLogitsLoss": [{}, {"pos_weight": torch.ones(3)}],
    **{row.module: row.options for row in PUBLIC},
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_torchs_with_another_forward(name):
    ours, theirs = getattr(fused_ml.nn, name), getattr(torch.nn, name)
    assert issubclass(ours, theirs)
    for options in MADE[name]:
        a, b = ours(**options), theirs(**options)
        assert isinstance(a, theirs)
        assert repr(a) == repr(b)
        assert a.state_dict().keys() == b.state_dict().keys()
        b.load_state_dict(a.state_dict())
    if name in ("Softmax", "LogSoftmax", "Softmin"):
        assert repr(ours(1)) == repr(theirs(1))


def test_modules_take_the_extras():
    x, target = torch.randn(4, 5), torch.tensor([0, 4, 2, 1])
    f = fused_ml.nn.functional
    loss = fused_ml.nn.CrossEntropyLoss(z_loss=0.1, softcap=3.0)
    assert torch.equal(loss(x, target), f.cross_entropy(x, target, z_loss=0.1, softcap=3.0))
    binary = fused_ml.nn.BCEWithLogitsLoss(focal_gamma=2.0, focal_alpha=0.25)
    expected = f.binary_cross_entropy_with_logits(x, x.sigmoid(), focal_gamma=2.0, focal_alpha=0.25)
    assert torch.equal(binary(x, x.sigmoid()), expected)


def arguments_of(name):
    return (1,) if "Soft" in name else ()


def inputs_of(name):
    ours = {"CrossEntropyLoss": (X, CLASSES), "NLLLoss": (X, CLASSES), "BCEWithLogitsLoss": (X, X.sigmoid())}
    return (ours | {row.module: row.operands(X) for row in PUBLIC}).get(name, (X,))


@pytest.mark.parametrize("what", ["class", "constructor", "full argument list"])
@pytest.mark.parametrize("name", MODULES)
def test_signatures_begin_with_torchs(name, what):
    """Libraries drop, in silence, the keywords that they do not find there."""
    ours, theirs = getattr(fused_ml.nn, name), getattr(torch.nn, name)
    if what == "full argument list":
        mine, torchs = inspect.getfullargspec(ours.__init__), inspect.getfullargspec(theirs.__init__)
        same = ("args", "varargs", "varkw", "defaults")
        assert [getattr(mine, each) for each in same] == [getattr(torchs, each) for each in same]
        return
    pair = (ours, theirs) if what == "class" else (ours.__init__, theirs.__init__)
    mine, torchs = (list(inspect.signature(each).parameters.values()) for each in pair)
    for a, b in zip(mine, torchs, strict=False):
        assert (a.name, a.kind, a.default) == (b.name, b.kind, b.default)
    assert len(mine) >= len(torchs)
    for extra in mine[len(torchs) :]:
        assert extra.kind is inspect.Parameter.KEYWORD_ONLY
        assert extra.default is not inspect.Parameter.empty


@pytest.mark.filterwarnings("ignore:size_average")
@pytest.mark.parametrize("name", MODULES)
def test_every_argument_reaches_torchs_constructor(name):
    ours, theirs = getattr(fused_ml.nn, name), getattr(torch.nn, name)
    given = {"weight": torch.rand(5), "size_average": False, "ignore_index": 3, "reduce": True, "reduction": "sum"}
    given |= {"label_smoothing": 0.25, "pos_weight": torch.rand(5), "dim": 1}
    names = [each for each in inspect.signature(theirs).parameters if each in given]
    for options in ({each: given[each] for each in names}, *({each: given[each]} for each in names)):
        for made in (ours(**options), ours(*options.values()) if len(options) == len(names) else ours(**options)):
            expected = vars(theirs(**options))
            for key in expected:
                assert getattr(made, key) is expected[key] or repr(getattr(made, key)) == repr(expected[key]), key


@pytest.mark.parametrize(("arguments", "keywords"), [((1, 2, 3, 4, 5, 6, 7, 8), {}), ((), {"no_such": 1})])
@pytest.mark.parametrize("name", MODULES)
def test_wrong_arguments_raise_torchs_error(name, arguments, keywords):
    errors = []
    for space in (fused_ml.nn, torch.nn):
        with pytest.raises(TypeError) as error:
            getattr(space, name)(*arguments, **keywords)
        errors.append(str(error.value).split(" but ")[0].split("positional")[0])
    assert errors[0] == errors[1]


@pytest.mark.parametrize("name", MODULES)
def test_pickles_and_copies_are_fused_again(name):
    cls = getattr(fused_ml.nn, name)
    module = cls(*arguments_of(name))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for again in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert type(again) is cls
        assert repr(again) == repr(module)
        assert torch.equal(again(*inputs_of(name)), module(*inputs_of(name)))
        assert nodes(again) == nodes(module)
    assert cls.__module__.startswith("fused_ml")


class Loss(torch.nn.Module):
    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, x, target):
        return self.end(x * 2, target)


def nodes(module):
    """What torch.fx makes of a model that ends in `module`."""
    model = Loss(module) if len(inputs_of(type(module).__name__)) == 2 else torch.nn.Sequential(module)
    return [(node.op, str(node.target), str(node.args)) for node in torch.fx.symbolic_trace(model).graph.nodes]


@pytest.mark.parametrize("name", MODULES)
def test_one_node_in_graphs_as_torchs(name):
    ours, theirs = (getattr(space, name)(*arguments_of(name)) for space in (fused_ml.nn, torch.nn))
    assert nodes(ours) == nodes(theirs)
    assert [op for op, *_ in nodes(ours)].count("call_module") == 1
    inputs = inputs_of(name)
    model = Loss(ours) if len(inputs) == 2 else torch.nn.Sequential(torch.nn.Identity(), ours)
    traced = torch.fx.symbolic_trace(model)
    for graph in (traced, copy.deepcopy(traced)):
        assert torch.equal(graph(*inputs), model(*inputs))
        assert any(type(each) is type(ours) for each in graph.modules())


@pytest.mark.parametrize("name", [name for name in MODULES if "Loss" not in name])
def test_a_subclass_is_traced_into_as_torchs(name):
    def targets(space):
        class Own(getattr(space, name)):
            def forward(self, x):
                return super().forward(x) + 1

        assert Own(*arguments_of(name)).__module__ == __name__
        graph = torch.fx.symbolic_trace(torch.nn.Sequential(Own(*arguments_of(name)))).graph
        return [node.op for node in graph.nodes]

    assert targets(fused_ml.nn) == targets(torch.nn) == ["placeholder", "call_function", "call_function", "output"]


@pytest.mark.parametrize("name", MODULES)
def test_compiled_modules_are_fused_and_see_what_changes(name):
    torch._dynamo.reset()
    module, inputs = getattr(fused_ml.nn, name)(*arguments_of(name)), inputs_of(name)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), module(*inputs))
    for key, value in {"ignore_index": 1, "label_smoothing": 0.25, "z_loss": 0.5, "focal_gamma": 2.0, "dim": 0}.items():
        if hasattr(module, key):
            setattr(module, key, value)
            torch.testing.assert_close(compiled(*inputs), module(*inputs))
