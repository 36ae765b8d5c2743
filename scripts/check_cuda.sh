#!/bin/bash
# Everything that needs a GPU, in steps of at most ten minutes, each with a time limit of its own.
# Installs nothing. On a machine where a call may take ten minutes: one line a call.
#
#   scripts/check_cuda.sh build smoke
#   scripts/check_cuda.sh bench-ours test
#   scripts/check_cuda.sh sanitize
#   scripts/check_cuda.sh ncu
#   scripts/check_cuda.sh bench-all
#   scripts/check_cuda.sh e2e
#
# build       compiles the operators
# smoke       every operator on a few sizes against the reference; what comes later would be spoilt by one bad access
# bench-ours  times of our operators alone          bench-all  beside eager, compiled and library ones
# test        the tests of the operators, in 12 processes where pytest-xdist is there
# sanitize    memcheck, racecheck, initcheck, synccheck on scripts/sanitize_launches.py
# ncu         how near our kernels come to the limits of memory and arithmetic
# e2e         images per second of training and prediction, and train_net.py on the embedded data set with mixed
#             precision, shortened (needs Detectron2)
#
#   PYTHON     a Python with PyTorch for CUDA and pytest (.venv/bin/python if there is one, else python3)
#   CUDA_HOME  where the toolkit is, for nvcc and its tools, if they are not on the PATH
#   RESULTS    folder of the results (benchmarks/results/<date>-<GPU>); at most 8 files, none above 16 MB
#   COMMIT     what to write down as the commit where there is no .git
set -uo pipefail
cd "$(dirname "$0")/.."

if [ -z "${PYTHON:-}" ]; then
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
[ -z "${CUDA_HOME:-}" ] || PATH=$CUDA_HOME/bin:$PATH
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
steps=("$@")
[ $# -gt 0 ] || steps=(build smoke bench-ours test sanitize ncu bench-all e2e)

gpu=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name())' 2>/dev/null) || {
  echo "PyTorch ($PYTHON) sees no GPU; scripts/compile_cuda.py and tests/cuda_emulation need none." >&2
  exit 1
}
RESULTS=${RESULTS:-benchmarks/results/$(date +%Y-%m-%d)-$(echo "$gpu" | tr -cs '[:alnum:]\n' '-')}
mkdir -p "$RESULTS"
logs=$(mktemp -d) output=$(mktemp -d)
# What hangs in a kernel heeds no polite signal.
limit() { timeout -k 10 "$@"; }
trap 'rm -rf "$logs" "$output"' EXIT
# The logs of earlier calls stay in the archive.
[ ! -f "$RESULTS/logs.tar.gz" ] || tar xzf "$RESULTS/logs.tar.gz" -C "$logs"
{
  echo "commit: ${COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}"
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

# Without the caching allocator, which would hide what goes past the end of a tensor.
sanitize() {
  local tool failed=0
  for tool in memcheck racecheck initcheck synccheck; do
    echo "-- $tool"
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 limit 130 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      "$PYTHON" scripts/sanitize_launches.py || failed=1
  done
  return $failed
}

run_tests() {
  local parallel=()
  ! "$PYTHON" -c 'import xdist' 2>/dev/null || parallel=(-n 12 --dist worksteal)
  limit 300 "$PYTHON" -m pytest -q "${parallel[@]}" tests/ops tests/cuda
}

# The figures first: a run that takes longer than it may costs nothing but its own summary.
train() {
  local failed=0
  "$PYTHON" -c 'import detectron2' || { echo "e2e: left out, there is no Detectron2"; return 0; }
  limit 90 "$PYTHON" benchmarks/bench_training.py --device cuda --amp || failed=1
  limit 90 "$PYTHON" benchmarks/bench_prediction.py --device cuda --workers 4 || failed=1
  limit 360 "$PYTHON" train_net.py --num-gpus 1 --config-file configs/digits_two_phase.yaml \
    SOLVER.AMP.ENABLED True SSOD.SCHEDULE.MAX_ITER "(300, 200, 200)" OUTPUT_DIR "$output" &&
    cp "$output/summary.json" "$RESULTS/e2e-summary.json" || failed=1
  return $failed
}

run_step() {
  case $1 in
    build) FORCE_CUDA=1 limit 400 "$PYTHON" setup.py build_ext --inplace ;;
    smoke) has_cuda && limit 60 "$PYTHON" scripts/sanitize_launches.py --smoke ;;
    bench-ours) has_cuda && limit 120 "$PYTHON" benchmarks/bench_ops.py --device cuda \
      --providers ours --seconds 0.5 --json "$RESULTS/bench-ours.json" ;;
    test) has_cuda && run_tests ;;
    sanitize) has_cuda && sanitize ;;
    ncu) has_cuda && limit 240 ncu --clock-control none --section SpeedOfLight \
      --kernel-name 'regex:(uncertainty|similarity|overlap|prepare|pair|loss|sum|order)' --csv \
      "$PYTHON" scripts/sanitize_launches.py ;;
    bench-all) has_cuda && limit 420 "$PYTHON" benchmarks/bench_ops.py --device cuda \
      --seconds 1 --json "$RESULTS/bench-all.json" ;;
    e2e) has_cuda && train ;;
    *) echo "unknown step: $1 (build smoke bench-ours test sanitize ncu bench-all e2e)" >&2 && return 2 ;;
  esac
}

failed=()
for step in "${steps[@]}"; do
  echo "== $step"
  start=$SECONDS
  run_step "$step" 2>&1 | tee "$logs/$step.txt" || failed+=("$step")
  echo "$step: $((SECONDS - start)) s" | tee -a "$RESULTS/steps.txt"
  tar czf "$RESULTS/logs.tar.gz" -C "$logs" .
done
find "$RESULTS" -type f -size +16M -exec sh -c 'echo "left out, above 16 MB: $1"; rm "$1"' _ {} \;
echo "Results: $RESULTS"
[ ${#failed[@]} -eq 0 ] || { echo "Failed: ${failed[*]}" | tee -a "$RESULTS/steps.txt" >&2; exit 1; }
