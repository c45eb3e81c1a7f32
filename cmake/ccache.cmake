# ccache when it is there; nothing changes where it is not. Paths count from the root of the project, so that every
# checkout finds what another has compiled.
find_program(NIBBLE_CCACHE ccache)
if(NIBBLE_CCACHE)
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${NIBBLE_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${launcher})
endif()
