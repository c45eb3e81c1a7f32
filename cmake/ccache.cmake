# ccache when it is there; nothing changes where it is not. Paths count from the root of the project, so that every
# checkout finds what another has compiled.
find_program(NIBBLE_CCACHE ccache)
if(NIBBLE_CCACHE)
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${NIBBLE_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  # By sources, never by what the preprocessor makes of them: of kernels it shows the host's side alone, and a change of
  # what stands under an #if for one architecture would be taken for none. The namespace leaves behind what was kept so.
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_DEPEND=1 CCACHE_NAMESPACE=kernels ${launcher})
endif()
