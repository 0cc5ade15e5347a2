"""``torch.nn`` with the fused functions and modules in place of torch's. Every other name and path is torch's own."""

# Ours stand before and behind torch's: of two imports of a name mypy keeps the first, Python and pyright the last.
# isort: off
from typing import TYPE_CHECKING as _TYPE_CHECKING
import sys as _sys

import fused_ml.nn.functional
import fused_ml.nn.modules

if _TYPE_CHECKING:
    from fused_ml.nn import functional as functional
    from fused_ml.nn import modules as modules
from fused_ml.nn.modules import *
from torch.nn import *  # type: ignore[assignment,no-redef]
from fused_ml.nn.modules import *

from fused_ml._namespaces import complete as _complete, fused as _fused

if _TYPE_CHECKING:
    from fused_ml.nn import functional as functional
    from fused_ml.nn import modules as modules
# The star import has brought torch's.
globals().update({name: _sys.modules[f"{__name__}.{name}"] for name in ("functional", "modules")})

FUSED = _fused(__name__)
_complete(__name__)
