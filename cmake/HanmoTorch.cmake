# libtorch from the PyPI wheel, linked without its CMake package (that one insists on CUDA).
# HANMO_TORCH_DIR is the wheel's torch folder; scripts/setup puts it under .deps/.
if(NOT HANMO_TORCH_DIR)
  file(GLOB _torch ${PROJECT_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/torch)
  set(HANMO_TORCH_DIR "${_torch}" CACHE PATH "The torch folder of the PyPI wheel")
endif()
if(NOT EXISTS ${HANMO_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "libtorch not found: run scripts/setup, or set HANMO_TORCH_DIR")
endif()

add_library(hanmo_torch INTERFACE)
target_include_directories(hanmo_torch SYSTEM INTERFACE ${HANMO_TORCH_DIR}/include)
# at::parallel_for is a header: without OpenMP it would silently run on one thread.
target_compile_options(hanmo_torch INTERFACE -fopenmp)
target_link_options(hanmo_torch INTERFACE -fopenmp -Wl,-rpath,${HANMO_TORCH_DIR}/lib)
# torch's own libgomp comes first, so that one OpenMP runtime serves both.
file(GLOB _gomp ${HANMO_TORCH_DIR}/lib/libgomp*.so* ${HANMO_TORCH_DIR}/../torch.libs/libgomp*.so*)
target_link_libraries(hanmo_torch INTERFACE
  ${HANMO_TORCH_DIR}/lib/libtorch_cpu.so ${HANMO_TORCH_DIR}/lib/libc10.so ${_gomp})

# Not file(WRITE): a new time stamp would rebuild everything after each configuration.
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/torch_pch.cc CONTENT "")
add_library(hanmo_torch_pch OBJECT ${PROJECT_BINARY_DIR}/torch_pch.cc)
target_link_libraries(hanmo_torch_pch PUBLIC hanmo_torch)
target_precompile_headers(hanmo_torch_pch PRIVATE <ATen/ATen.h> <string> <vector> <memory>)
