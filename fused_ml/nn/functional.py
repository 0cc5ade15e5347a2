"""``torch.nn.functional`` with the fused functions in place of torch's. Every other name is torch's own."""

# Ours stand before and behind torch's: of two imports of a name mypy keeps the first, Python and pyright the last.
# isort: off
from fused_ml.nn._fused_functions import *
from torch.nn.functional import *  # type: ignore[assignment,no-redef]
from fused_ml.nn._fused_functions import *
from fused_ml.nn._fused_functions import FUSED as FUSED

from fused_ml._namespaces import complete as _complete

_complete(__name__, ["CrossEntropyStats"])
