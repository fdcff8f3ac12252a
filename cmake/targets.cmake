# Flags once, and one helper per kind of target.
include(CheckCCompilerFlag)
add_library(im_flags INTERFACE)
target_compile_features(im_flags INTERFACE c_std_11)
target_compile_definitions(im_flags INTERFACE _GNU_SOURCE IM_VERSION="${PROJECT_VERSION}")
target_compile_options(im_flags INTERFACE
  -Wall -Wextra -Wformat=2 -Wshadow -Wimplicit-fallthrough -Wstrict-prototypes -Wmissing-prototypes
  -Werror=implicit -Werror=incompatible-pointer-types -Werror=int-conversion
  -fstack-protector-strong -fno-strict-aliasing -fvisibility=hidden -fPIC)
target_link_options(im_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed)
if(IM_KILLPOINTS OR (IM_SANITIZE AND NOT IM_FUZZ)) # a build for tests has them anyway: one build less in scripts/test
  target_compile_definitions(im_flags INTERFACE IM_KILLPOINTS)
endif()

# What makes a mistake of ours harder to use (docs/hardening.md). Compilers differ in what they know; a sanitizer wants to see
# a variable that was never set, not a zero.
set(hardening -Wtrampolines -Wbidi-chars=any -Werror=format-security
  -fstack-clash-protection -fcf-protection=full -fno-delete-null-pointer-checks -fno-strict-overflow)
if(IM_SANITIZE)
  target_compile_options(im_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(im_flags INTERFACE -fsanitize=address,undefined)
elseif(IM_TSAN)
  target_compile_options(im_flags INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(im_flags INTERFACE -fsanitize=thread)
else()
  list(APPEND hardening -ftrivial-auto-var-init=zero)
  target_compile_options(im_flags INTERFACE -U_FORTIFY_SOURCE $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=3>)
endif()
if(CMAKE_C_COMPILER_ID MATCHES "Clang")
  target_compile_options(im_flags INTERFACE -Wno-implicit-fallthrough) # uthash's macros say it in comments, which only gcc reads
endif()
if(IM_FUZZ) # libFuzzer goes by what all of the code does, not by the target's own file alone
  target_compile_options(im_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
foreach(flag ${hardening})
  string(MAKE_C_IDENTIFIER "has${flag}" known)
  check_c_compiler_flag(${flag} ${known})
  if(${known})
    target_compile_options(im_flags INTERFACE ${flag})
  endif()
endforeach()

# im_library(name SOURCES ... USES ...): a static library; headers are reached as "folder-name/header.h".
function(im_library name)
  cmake_parse_arguments(A "" "" "SOURCES;USES" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC im_flags ${A_USES})
  target_include_directories(${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/..)
endfunction()

# What runs, without the tests: they need packages that scripts/run does not ask for.
add_custom_target(programs)

# im_program(name SOURCES ... USES ...)
function(im_program name)
  cmake_parse_arguments(A "" "" "SOURCES;USES" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE im_flags ${A_USES})
  target_link_options(${name} PRIVATE -pie)
  add_dependencies(programs ${name})
endfunction()

# im_unit_test(name SOURCES ... USES ...): a cmocka program, known to ctest under its name.
function(im_unit_test name)
  cmake_parse_arguments(A "" "" "SOURCES;USES" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE im_flags cmocka ${A_USES})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 120)
endfunction()
