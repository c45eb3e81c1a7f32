# nibble_room(NAME [DEPENDS rooms…] [SOURCES …] [CUDA_SOURCES …] [NO_CUDA_SOURCES …] [LIBS …] [TESTS …])
#   A room is src/NAME and the static target nibble_NAME. DEPENDS is the layer rule: scripts/lint refuses an
#   include of a room that is not reachable through it. TESTS become one binary, nibble_tests_NAME, and one ctest.
#   CUDA_SOURCES are compiled in a build with CUDA, NO_CUDA_SOURCES in one without; nothing else differs between them.
function(nibble_room name)
  cmake_parse_arguments(R "" "" "DEPENDS;SOURCES;CUDA_SOURCES;NO_CUDA_SOURCES;LIBS;TESTS" ${ARGN})
  list(TRANSFORM R_DEPENDS PREPEND nibble_)
  if(NIBBLE_HAS_CUDA)
    list(APPEND R_SOURCES ${R_CUDA_SOURCES})
    if(R_CUDA_SOURCES)
      list(APPEND R_LIBS CUDA::cudart_static)
    endif()
  else()
    list(APPEND R_SOURCES ${R_NO_CUDA_SOURCES})
  endif()
  add_library(nibble_${name} STATIC ${R_SOURCES})
  target_include_directories(nibble_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(nibble_${name} PUBLIC ${R_DEPENDS} ${R_LIBS})
  if(NIBBLE_TESTS AND R_TESTS)
    nibble_test(${name} SOURCES ${R_TESTS} LIBS nibble_${name})
  endif()
endfunction()

# nibble_test(NAME SOURCES … LIBS … [SLOW]): a GoogleTest binary nibble_tests_NAME, run as the ctest NAME. With SLOW, its
#   tests whose names begin with Slow are the ctest NAME_slow instead, labelled slow, which takes minutes and runs only
#   when asked for: ctest --test-dir build/release -L slow
#   Tests run in the root of the project and name its files from there.
function(nibble_test name)
  cmake_parse_arguments(T "SLOW" "" "SOURCES;LIBS" ${ARGN})
  add_executable(nibble_tests_${name} ${T_SOURCES})
  target_include_directories(nibble_tests_${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(nibble_tests_${name} PRIVATE NIBBLE_SOURCE_DIR=".")
  # Complex products without the rescue of infinities: gradient checks run oracles in complex numbers.
  target_compile_options(nibble_tests_${name} PRIVATE
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fcx-limited-range>)
  target_link_libraries(nibble_tests_${name} PRIVATE ${T_LIBS} GTest::gtest_main)
  # What is only a test need not be fast, and compiles sooner.
  target_compile_options(nibble_tests_${name} PRIVATE $<$<CONFIG:Debug>:-O0> $<$<CONFIG:Release>:-O1>)
  add_test(NAME ${name} COMMAND nibble_tests_${name} --gtest_filter=-*.Slow*)
  set_tests_properties(${name} PROPERTIES TIMEOUT 1200 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(T_SLOW)
    add_test(NAME ${name}_slow COMMAND nibble_tests_${name} --gtest_filter=*.Slow*)
    set_tests_properties(${name}_slow PROPERTIES LABELS slow TIMEOUT 3600 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  endif()
endfunction()
