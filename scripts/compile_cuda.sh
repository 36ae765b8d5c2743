#!/bin/sh
# Compiles every CUDA source for sm_80, sm_90 and, where the toolkit knows it, sm_100, with warnings as errors, and
# prints registers and spills of every kernel. Needs nvcc and a Python with PyTorch, no GPU.
#
#   PYTHON      the Python whose PyTorch headers are used (.venv/bin/python if there is one, else python3)
#   CUDA_HOME   where bin/nvcc is looked for first; otherwise on the PATH
#   CUDA_ARCHS  other architectures, e.g. "80 89"
set -eu
cd "$(dirname "$0")/.."

if [ -n "${CUDA_HOME:-}" ] && [ -x "$CUDA_HOME/bin/nvcc" ]; then
  nvcc=$CUDA_HOME/bin/nvcc
elif ! nvcc=$(command -v nvcc); then
  echo "No nvcc on the PATH nor under CUDA_HOME: the CUDA sources were not compiled."
  echo "Install a CUDA toolkit, or set CUDA_HOME, and run this again."
  exit 0
fi
if [ -z "${PYTHON:-}" ]; then
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi

# PyTorch's headers, and those of CUDA's libraries from PyTorch's own wheels (a slim toolkit lacks them).
includes=$("$PYTHON" - <<'END'
import glob
import os

import torch

root = os.path.join(os.path.dirname(torch.__file__), "include")
wheels = glob.glob(os.path.join(os.path.dirname(os.path.dirname(torch.__file__)), "nvidia/cu*/include"))
for path in [root, os.path.join(root, "torch/csrc/api/include"), *wheels]:
    print("-isystem", path)
END
)

known=$("$nvcc" --list-gpu-arch)
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
for arch in ${CUDA_ARCHS:-80 90 100}; do
  if ! echo "$known" | grep -qx "compute_$arch"; then
    echo "sm_$arch: unknown to this toolkit, left out"
    continue
  fi
  for source in csrc/cuda/*.cu; do
    echo "sm_$arch $source"
    # shellcheck disable=SC2086  # $includes is many words
    "$nvcc" -std=c++20 -O3 "-arch=sm_$arch" -Icsrc $includes --expt-relaxed-constexpr \
      -D__CUDA_NO_HALF_OPERATORS__ -D__CUDA_NO_HALF_CONVERSIONS__ -D__CUDA_NO_HALF2_OPERATORS__ \
      -D__CUDA_NO_BFLOAT16_CONVERSIONS__ -Werror all-warnings -Xptxas -v,-Werror \
      -Xcompiler -fPIC,-Wall,-Wextra,-Werror -c "$source" -o "$objects/object.o" 2> "$objects/log" || {
      cat "$objects/log" >&2
      exit 1
    }
    c++filt < "$objects/log" | awk '
      /Compiling entry function/ { split($0, part, "\047"); name = part[2]; sub(/\(.*/, "", name); sub(/^void /, "", name); gsub(/d2_ssod::/, "", name) }
      /bytes spill stores/ { spills = $5 + $9 }
      /Used [0-9]+ registers/ { printf "  %4d registers %4d bytes spilled  %s\n", substr($0, index($0, "Used ") + 5), spills, name }'
  done
done
