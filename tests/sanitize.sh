#!/usr/bin/env bash
# The kernels under AddressSanitizer and UndefinedBehaviorSanitizer: built apart, driven by the kernel tests at every
# instruction set that this CPU has. QUICK=1: without the large tensors, for every change.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-python3}")
cxx=${CXX:-c++}
work=build/sanitized # kept: the next run compiles what has changed
mkdir -p "$work"
(cd "$work" && rm -rf csrc fused_ml bench tests)
cp -rp csrc fused_ml bench tests setup.py pyproject.toml README.md LICENSE "$work"
cd "$work"
rm -f fused_ml/*.so

sanitizers=address,undefined,float-cast-overflow
export FUSED_ML_CXXFLAGS="-O1 -g1 -fsanitize=$sanitizers -fno-sanitize-recover=all -fno-omit-frame-pointer"
export FUSED_ML_CUDA=0
export FUSED_ML_LDFLAGS="-fsanitize=$sanitizers"
MAX_JOBS=${MAX_JOBS:-2} "$python" setup.py -q build_ext --inplace >build.log 2>&1 || { cat build.log; exit 1; }
[[ $(nm -D fused_ml/_cpu.so) == *__asan_report* ]] || { echo "the library is not instrumented" >&2; exit 1; }
"$python" -c "import runpy; runpy.run_path('bench/raw/_build.py')['build']()" # now, or the compiler would be preloaded too

# Fresh memory is filled with 0xff, NaN in every type: what is read but was never written shows in the results.
export ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16:malloc_fill_byte=255:max_malloc_fill_size=1048576
export FUSED_ML_CACHE=0 # memory that is kept may be larger than its tensor: what lies behind that would be missed
export UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$PWD OMP_WAIT_POLICY=passive
LD_PRELOAD=$(for name in libasan libubsan libstdc++; do "$cxx" -print-file-name=$name.so; done | paste -sd ' ')
export LD_PRELOAD

run() { "$python" -m pytest -q -p no:cacheprovider --capture=sys "$@"; } # or a report would end in a file of pytest's
without="compile or forced or more_than_2" # torch's compiler, child processes, 16 GB
without+=${QUICK:+" or large or enormous or segmentation or 70000 or 20000 or 4097 or many_rows"}
files=(tests/operators/test_{cross_entropy,cross_entropy_extras,softmax,nll_loss,bce_with_logits,logsigmoid,numerics}.py
  tests/optimizers/test_{steps,gather}.py)
[[ ${QUICK:-} ]] || files+=(tests/operators/test_{numerics_range,opcheck}.py tests/optimizers/test_{kernels,scaling}.py)
run tests/kernels/test_raw.py # at every level by itself
for level in $("$python" -c "import fused_ml; print(*fused_ml.cpu_isas_supported())"); do
  echo "== $level"
  FUSED_ML_ISA=$level run "${files[@]}" -k "not ($without)"
  FUSED_ML_ISA=$level run tests/kernels/test_large_outputs.py -k "5003 and float32 or beside" # rows written past the caches
done
