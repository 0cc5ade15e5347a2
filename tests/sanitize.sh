#!/usr/bin/env bash
# The kernels under AddressSanitizer and UndefinedBehaviorSanitizer: built apart, driven by the kernel tests.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r csrc fused_ml tests setup.py pyproject.toml README.md LICENSE "$work"
cd "$work"
rm -f fused_ml/*.so
export FUSED_ML_CXXFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
export FUSED_ML_LDFLAGS="-fsanitize=address,undefined"
MAX_JOBS=${MAX_JOBS:-2} "$python" setup.py -q build_ext --inplace
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $(gcc -print-file-name=libstdc++.so.6)"
export ASAN_OPTIONS=detect_leaks=0 FUSED_ML_SANITIZED=1 PYTHONPATH=$work
"$python" -m pytest tests/test_cross_entropy.py tests/test_cross_entropy_extras.py tests/test_softmax.py \
  tests/test_nll_loss.py tests/test_bce_with_logits.py tests/test_logsigmoid.py tests/test_optim_steps.py \
  -k "not compile and not forced"
