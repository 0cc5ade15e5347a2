"""``torch.nn.modules`` with the fused modules in place of torch's. Every other name and path is torch's own."""

# Ours stand before and behind torch's: of two imports of a name mypy keeps the first, Python and pyright the last.
# isort: off
from fused_ml.nn.modules.activation import *
from fused_ml.nn.modules.loss import *
from torch.nn.modules import *  # type: ignore[assignment]
from fused_ml.nn.modules.activation import *
from fused_ml.nn.modules.loss import *

from fused_ml._namespaces import complete as _complete

_complete(__name__)
