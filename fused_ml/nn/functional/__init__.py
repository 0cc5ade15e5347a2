"""``torch.nn.functional`` with the fused functions in place of torch's. Every other name is torch's own."""

# Ours stand before and behind torch's: of two imports of a name mypy keeps the first, Python and pyright the last.
# isort: off
from fused_ml.nn.functional._binary_cross_entropy import *
from fused_ml.nn.functional._cross_entropy import *
from fused_ml.nn.functional._nll_loss import *
from fused_ml.nn.functional._softmax import *
from fused_ml.nn.functional.activation import *
from fused_ml.nn.functional.loss import *
from torch.nn.functional import *  # type: ignore[assignment,no-redef]
from fused_ml.nn.functional._binary_cross_entropy import *
from fused_ml.nn.functional._cross_entropy import *
from fused_ml.nn.functional._nll_loss import *
from fused_ml.nn.functional._softmax import *
from fused_ml.nn.functional.activation import *
from fused_ml.nn.functional.loss import *

from fused_ml._namespaces import complete as _complete, fused as _fused

FUSED = _fused(__name__)
_complete(__name__, ["CrossEntropyStats"])
