"""torch's own test tables: `op_db`, `module_db`, `criterion_tests`.

They live in `torch.testing._internal`, whose import needs `expecttest` for tests that are of no use here:
where the module is missing, a stub stands in for it.
"""

import importlib.util
import sys
import types
import unittest

if importlib.util.find_spec("expecttest") is None:
    stub = types.ModuleType("expecttest")
    stub.TestCase = unittest.TestCase
    stub.ACCEPT = False
    sys.modules["expecttest"] = stub

from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
from torch.testing._internal.common_nn import CriterionTest, criterion_tests

__all__ = ["CriterionTest", "ModuleErrorEnum", "criterion_tests", "module_db", "op_db"]
