// One instruction set's kernels: the frames instantiated with the formulas, and the table that exports them.
// Included once per instruction set, inside its region.

#include "multi_tensor_table.h"
#include "pointwise_table.h"
#include "rowwise_table.h"

namespace FUSED_ML_NAMESPACE {

extern const Kernels kernels;
const Kernels kernels = {
    FUSED_ML_ISA_NAME, rowwise_table,       count_rows,
    pointwise_table,   multi_tensor_update, multi_tensor_square_sum,
};

}  // namespace FUSED_ML_NAMESPACE
