// Loading this module registers the operators; its only function says how it was built.
#include <pybind11/pybind11.h>

#include "d2_ssod_build_info.h"  // written by setup.py

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["compiler"] = "gcc-compatible " __VERSION__;
#ifdef _OPENMP
  info["openmp"] = _OPENMP;
#else
  info["openmp"] = pybind11::none();
#endif
  info["torch"] = D2_SSOD_TORCH_VERSION;
  info["cuda"] = D2_SSOD_CUDA;
  info["source_hash"] = D2_SSOD_SOURCE_HASH;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.def("build_info", &build_info,
        "Compiler, OpenMP and torch versions; CUDA version and architectures.");
}
