// One instruction set's kernels: the frames instantiated with the formulas, and the table that exports them.
// Included once per instruction set, inside its region.

#include "rowwise_table.h"

namespace FUSED_ML_NAMESPACE {

extern const Kernels kernels;
const Kernels kernels = {
    FUSED_ML_ISA_NAME,
    rowwise_table,
};

}  // namespace FUSED_ML_NAMESPACE
