# The words of the per-folder files:
#   hanmo_library(name SRCS a.cc ... DEPS lib ...)      a static library
#   hanmo_test(name SRCS a_test.cc ... DEPS lib ...)    a gtest program, registered with ctest
#   hanmo_program(name SRCS a.cc ... DEPS lib ...)      any other program, in bin/
# The variants hanmo_torch_library, hanmo_torch_test and hanmo_torch_program are the only targets
# that see libtorch's headers; its bundled protobuf and fmt headers do not compile beside ours.
function(_hanmo_parse)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  set(ARG_SRCS ${ARG_SRCS} PARENT_SCOPE)
  set(ARG_DEPS ${ARG_DEPS} PARENT_SCOPE)
endfunction()

function(hanmo_library name)
  _hanmo_parse(${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} Threads::Threads)
endfunction()

function(hanmo_test name)
  if(NOT HANMO_TESTS)
    return()
  endif()
  _hanmo_parse(${ARGN})
  add_executable(${name} ${ARG_SRCS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main Threads::Threads)
  # Tests read goldens relative to the source tree.
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  # As workers/main.cc sets it.
  set_tests_properties(${name} PROPERTIES ENVIRONMENT MKL_CBWR=AUTO)
endfunction()

function(hanmo_program name)
  _hanmo_parse(${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} Threads::Threads)
endfunction()

function(hanmo_benchmark name)
  if(HANMO_BENCH)
    hanmo_program(${name} ${ARGN})
    target_link_libraries(${name} PRIVATE benchmark::benchmark)
  endif()
endfunction()

function(hanmo_fuzzer name)
  if(NOT HANMO_FUZZ)
    return()
  endif()
  _hanmo_parse(${ARGN})
  add_executable(${name} ${ARG_SRCS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} Threads::Threads)
endfunction()

function(hanmo_torch_library name)
  _hanmo_parse(${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE hanmo_torch Threads::Threads)
  target_precompile_headers(${name} REUSE_FROM hanmo_torch_pch)
endfunction()

# What a program shares with the precompiled header, which is refused with any other setting, -fPIE
# for example.
function(_hanmo_torch_program name)
  target_link_libraries(${name} PRIVATE hanmo_torch)
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${name} PRIVATE -fPIC)
  target_precompile_headers(${name} REUSE_FROM hanmo_torch_pch)
endfunction()

function(hanmo_torch_program name)
  hanmo_program(${name} ${ARGN})
  _hanmo_torch_program(${name})
endfunction()

function(hanmo_torch_test name)
  hanmo_test(${name} ${ARGN})
  if(TARGET ${name})
    _hanmo_torch_program(${name})
  endif()
endfunction()
