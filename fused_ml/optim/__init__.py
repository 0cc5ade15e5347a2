"""torch.optim with fused optimizers: ``from fused_ml import optim`` replaces ``from torch import optim``.

SGD, Adam, AdamW and RMSprop step all parameters in one pass over memory; every other name and path is torch's own.
"""

# Ours stand before and behind torch's: of two imports of a name mypy keeps the first, Python and pyright the last.
# isort: off
from fused_ml.optim.adam import Adam as Adam
from fused_ml.optim.adamw import AdamW as AdamW
from fused_ml.optim.rmsprop import RMSprop as RMSprop
from fused_ml.optim.sgd import SGD as SGD
from torch.optim import *  # type: ignore[assignment]
from torch.optim import lr_scheduler as lr_scheduler, swa_utils as swa_utils

from fused_ml.optim.adam import Adam as Adam
from fused_ml.optim.adamw import AdamW as AdamW
from fused_ml.optim.rmsprop import RMSprop as RMSprop
from fused_ml.optim.sgd import SGD as SGD

from fused_ml._namespaces import complete as _complete, fused as _fused

FUSED = _fused(__name__)
_complete(__name__)
