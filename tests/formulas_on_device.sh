#!/usr/bin/env bash
# Every formula header must compile for a CUDA device as it is: instantiated in a kernel, no GPU needed.
set -eu
nvcc=${NVCC:-$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")}
if ! [ -x "$nvcc" ]; then
  echo "formulas_on_device: no CUDA toolkit found (set NVCC or CUDA_HOME); the headers were not compiled for a device"
  exit 0
fi
here=$(cd "$(dirname "$0")" && pwd)
for header in "$here"/../csrc/formulas/*.h "$here"/../csrc/formulas/*/*.h; do
  name=$(basename "$header")
  grep -q "[/\"]$name\"" "$here/formulas_on_device.cu" || grep -rq "[\"/]$name\"" "$here"/../csrc/formulas "$here"/../csrc/catalog --include='*.h' ||
    { echo "formulas_on_device.cu does not include $name"; exit 1; }
done
"$nvcc" -std=c++20 -I"$here/../csrc" -arch=sm_80 -Werror all-warnings -cubin -o /dev/null "$here/formulas_on_device.cu"
echo "formulas_on_device: every formula compiles with $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/nvcc \1/p')"
