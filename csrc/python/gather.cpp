// What an optimizer's step asks of Python for every parameter, in one call: its gradient, whether any object
// of the last step was replaced, and where the tensors lie. In Python each of these is a pass of 40 to 70 ns
// a tensor; over many small parameters they would take longer than the step.
//
// Python's limited API and torch's DLPack exchange table: one binary for every Python (abi3) and every torch
// from 2.10 on. It knows nothing of plans or kernels, and the libraries of kernels nothing of Python.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
// After Python's own header, which has to come first.
#include <ATen/dlpack.h>

#include <algorithm>
#include <cstddef>

#include "operators/tensor_view.h"

namespace {

// Of torch; filled at import, never freed.
struct Torch {
  PyObject *tensor, *parameter;  // types
  PyObject* is_neg;              // Tensor's method
  int (*view)(void* tensor, DLTensor* result);
} torch;

using fused_ml::TensorView;

static_assert(sizeof(TensorView) == sizeof(DLTensor));
static_assert(int(TensorView::cpu) == kDLCPU && int(TensorView::cuda) == kDLCUDA);
static_assert(int(TensorView::floating) == kDLFloat && int(TensorView::bfloat) == kDLBfloat);
#define SAME_PLACE(ours, theirs) static_assert(offsetof(TensorView, ours) == offsetof(DLTensor, theirs))
SAME_PLACE(data, data);
SAME_PLACE(device, device);
SAME_PLACE(device_index, device.device_id);
SAME_PLACE(dims, ndim);
SAME_PLACE(type, dtype.code);
SAME_PLACE(bits, dtype.bits);
SAME_PLACE(lanes, dtype.lanes);
SAME_PLACE(sizes, shape);
SAME_PLACE(strides, strides);
SAME_PLACE(byte_offset, byte_offset);
#undef SAME_PLACE

PyObject *kParams, *kGrad;  // "params", "grad"

// Whether the values may be stored negated (torch's lazy `imag` of a conjugate). Such a tensor looks at every
// second float of complex numbers: a dimension of odd stride rules it out.
bool may_be_negated(const DLTensor& view) {
  for (int32_t d = 0; d < view.ndim; ++d) {
    if (view.shape[d] > 1 && view.strides[d] % 2 != 0) return false;
  }
  return true;
}

bool is_plain(PyObject* tensor) {
  PyObject* const type = PyObject_Type(tensor);
  Py_DecRef(type);
  return type == torch.tensor || type == torch.parameter;
}

bool negated(PyObject* tensor) {
  PyObject* const answer = PyObject_CallFunctionObjArgs(torch.is_neg, tensor, nullptr);
  const bool no = answer == Py_False;
  Py_DecRef(answer);
  return !no;
}

// Whether the values of every parameter's state are the objects listed in `known`, in order.
bool states_are(PyObject* state, PyObject* known) {
  const Py_ssize_t count = PyList_Size(known);
  Py_ssize_t next = 0, place = 0;
  PyObject *parameter, *entry, *name, *value;
  while (PyDict_Next(state, &place, &parameter, &entry)) {
    Py_ssize_t inner = 0;
    while (PyDict_Next(entry, &inner, &name, &value)) {
      if (next == count || PyList_GetItem(known, next++) != value) return false;
    }
  }
  return next == count;
}

// The gradient of a parameter that has one, and the views of both; null: not as expected.
PyObject* gather_one(PyObject* param, DLTensor* views) {
  PyObject* const grad = PyObject_GetAttr(param, kGrad);
  if (grad && grad != Py_None && is_plain(grad) && torch.view(param, &views[0]) == 0 &&
      torch.view(grad, &views[1]) == 0 && !(may_be_negated(views[1]) && negated(grad))) {
    return grad;
  }
  Py_DecRef(grad);
  return nullptr;
}

bool has_no_gradient(PyObject* param) {
  PyObject* const grad = PyObject_GetAttr(param, kGrad);
  Py_DecRef(grad);
  return grad == Py_None;
}

bool gather_all(PyObject* groups, PyObject* params, const char* absent, PyObject* grads, DLTensor* views) {
  const Py_ssize_t count = PyList_Size(params);
  Py_ssize_t next = 0, found = 0;
  for (Py_ssize_t g = 0; g < PyList_Size(groups); ++g) {
    PyObject* const list = PyDict_GetItemWithError(PyList_GetItem(groups, g), kParams);
    const Py_ssize_t length = list ? PyList_Size(list) : -1;
    if (length < 0 || length > count - next) return false;
    for (Py_ssize_t i = 0; i < length; ++i, ++next) {
      PyObject* const param = PyList_GetItem(list, i);
      if (param != PyList_GetItem(params, next)) return false;
      if (absent[next]) {
        if (!has_no_gradient(param)) return false;
        continue;
      }
      PyObject* const grad = gather_one(param, views + 2 * found);
      if (!grad || PyList_SetItem(grads, found++, grad) != 0) return false;
    }
  }
  return next == count;
}

const char kGatherDoc[] =
    R"(gather(groups, params, absent, state, known, views) -> list | None

The gradients of `params` that have one, if nothing has been replaced since the rest was noted; else None.

groups: an optimizer's param_groups, which must hold exactly `params`, in order
absent: bytes, one for each parameter: 1 where it has no gradient
state, known: the optimizer's state, and the list of its values' values
views: the address of room for two DLTensors for each gradient, the parameter's view and the gradient's, which
are valid while the tensors live)";

PyObject* gather(PyObject*, PyObject* arguments) {
  PyObject *groups, *params, *state, *known;
  const char* absent;
  Py_ssize_t count;
  unsigned long long views;
  if (!PyArg_ParseTuple(arguments, "O!O!y#O!O!K", &PyList_Type, &groups, &PyList_Type, &params, &absent,
                        &count, &PyDict_Type, &state, &PyList_Type, &known, &views)) {
    return nullptr;
  }
  if (PyList_Size(params) != count) {
    PyErr_SetString(PyExc_ValueError, "absent: expected one byte for each parameter");
    return nullptr;
  }
  PyObject* grads = PyList_New(std::count(absent, absent + count, 0));
  if (!grads) return nullptr;
  if (states_are(state, known) &&
      gather_all(groups, params, absent, grads, reinterpret_cast<DLTensor*>(views))) {
    return grads;
  }
  Py_DecRef(grads);
  PyErr_Clear();  // whoever asked takes the long way, which says what is wrong
  Py_IncRef(Py_None);
  return Py_None;
}

PyObject* attribute(const char* module, const char* first, const char* second) {
  const char* names[] = {first, second};
  PyObject* result = PyImport_ImportModule(module);
  for (int i = 0; result && i < 2 && names[i]; ++i) {
    PyObject* const from = result;
    result = PyObject_GetAttrString(from, names[i]);
    Py_DecRef(from);
  }
  return result;
}

bool find_torch() {
  torch.tensor = attribute("torch", "Tensor", nullptr);
  torch.parameter = attribute("torch.nn", "Parameter", nullptr);
  torch.is_neg = attribute("torch", "Tensor", "is_neg");
  PyObject* const capsule = attribute("torch", "Tensor", "__dlpack_c_exchange_api__");
  if (!torch.tensor || !torch.parameter || !torch.is_neg || !capsule) return false;
  const auto* table =
      static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  if (!table) return false;
  torch.view =
      table->header.version.major == DLPACK_MAJOR_VERSION ? table->dltensor_from_py_object_no_sync : nullptr;
  if (!torch.view) PyErr_SetString(PyExc_ImportError, "this torch has another DLPack exchange table");
  return torch.view != nullptr;
}

PyMethodDef methods[] = {{"gather", gather, METH_VARARGS, kGatherDoc}, {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_gather", nullptr, -1, methods};

}  // namespace

PyMODINIT_FUNC PyInit__gather() {
  kParams = PyUnicode_InternFromString("params");
  kGrad = PyUnicode_InternFromString("grad");
  return kParams && kGrad && find_torch() ? PyModule_Create(&definition) : nullptr;
}
