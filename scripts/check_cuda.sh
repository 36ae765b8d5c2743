#!/bin/bash
# Everything that needs a GPU, in one go: builds the operators, runs all of their tests, the memory
# and race checkers, and the benchmarks. What came out lies in benchmarks/results/<date>-<GPU>/
# afterwards. Installs nothing.
#
#   scripts/check_cuda.sh [build] [test] [memcheck] [racecheck] [bench]     all of them by default
#
#   PYTHON     a Python with PyTorch for CUDA and pytest (.venv/bin/python if there is one, else python3)
#   CUDA_HOME  where the toolkit is, for nvcc and compute-sanitizer, if they are not on the PATH
#   RESULTS    another folder for the results
set -uo pipefail
cd "$(dirname "$0")/.."

if [ -z "${PYTHON:-}" ]; then
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
[ -z "${CUDA_HOME:-}" ] || PATH=$CUDA_HOME/bin:$PATH
steps=("$@")
[ $# -gt 0 ] || steps=(build test memcheck racecheck bench)

gpu=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name())' 2>/dev/null) || {
  echo "PyTorch ($PYTHON) sees no GPU; scripts/compile_cuda.py and tests/cuda_emulation need none." >&2
  exit 1
}
RESULTS=${RESULTS:-benchmarks/results/$(date +%Y-%m-%d)-$(echo "$gpu" | tr -cs '[:alnum:]\n' '-')}
mkdir -p "$RESULTS"
{
  echo "commit: $(git rev-parse HEAD 2>/dev/null || echo unknown)"
  echo "date: $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  "$PYTHON" -c 'import torch; print("torch:", torch.__version__, "CUDA:", torch.version.cuda)'
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
  nvcc --version | tail -2
} > "$RESULTS/machine.txt" 2>&1

# Without the CUDA operators their tests would be skipped, which looks much like success.
has_cuda() {
  "$PYTHON" - <<'END'
from d2_ssod.ops import build_info
if build_info()["cuda"] == "cpu only":
    raise SystemExit("d2_ssod was built without CUDA: run scripts/check_cuda.sh build")
END
}

# The checkers are slow: samples of every kernel. And without the caching allocator, which would hide
# what goes past the end of a tensor.
sanitize() {
  local checked=(tests/ops tests/cuda -q -p no:cacheprovider
    -k "cuda and not compile and not opcheck and not gradcheck and not large and not graph")
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 \
    "$PYTHON" -m pytest "${checked[@]}"
}

run_step() {
  case $1 in
    build) FORCE_CUDA=1 "$PYTHON" setup.py build_ext --inplace ;;
    test) has_cuda && "$PYTHON" -m pytest tests/ops tests/cuda tests/cuda_emulation ;;
    memcheck | racecheck) has_cuda && sanitize "$1" ;;
    bench) has_cuda && "$PYTHON" benchmarks/bench_ops.py --device cuda --json "$RESULTS/bench.json" ;;
    *) echo "unknown step: $1 (build, test, memcheck, racecheck, bench)" >&2 && return 2 ;;
  esac
}

failed=()
for step in "${steps[@]}"; do
  echo "== $step"
  run_step "$step" 2>&1 | tee "$RESULTS/$step.txt" || failed+=("$step")
done
echo "Results: $RESULTS"
[ ${#failed[@]} -eq 0 ] || { echo "Failed: ${failed[*]}" >&2; exit 1; }
