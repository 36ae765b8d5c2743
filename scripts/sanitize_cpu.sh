#!/bin/sh
# Builds the CPU operators with the address and undefined-behaviour sanitizers, in a folder of its own, and
# runs their tests. Usage: scripts/sanitize_cpu.sh [python]
set -eu

python=${1:-python}
case $python in
  */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -r "$root/csrc" "$root/d2_ssod" "$root/setup.py" "$root/pyproject.toml" "$work"
mkdir "$work/tests"
cp -r "$root/tests/ops" "$work/tests"
for file in README.md LICENSE; do [ ! -e "$root/$file" ] || cp "$root/$file" "$work"; done
rm -f "$work"/d2_ssod/_C*
cd "$work"

flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
FORCE_CUDA=0 D2_SSOD_CXXFLAGS="$flags -O1 -g1" D2_SSOD_LDFLAGS="-fsanitize=address,undefined" \
  "$python" setup.py --quiet build_ext --inplace

# The interpreter is not built with the sanitizer, so its runtime comes first. Left out: leaks (the
# interpreter's own), tests that start other processes or compilers.
# libstdc++ must be there before the sanitizer looks for the exceptions' functions. pytest must not
# capture (-s): it would swallow the sanitizer's report.
export LD_PRELOAD="$(${CXX:-g++} -print-file-name=libasan.so) $(${CXX:-g++} -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
for capability in default avx2 avx512; do
  echo "instruction set: $capability (or the best below it)"
  ATEN_CPU_CAPABILITY=$capability "$python" -m pytest -q -s -p no:cacheprovider tests/ops \
    --ignore tests/ops/test_loading.py -k "not inductor and not compile"
done
