# SPDX-License-Identifier: Apache-2.0
# Mends the imported targets of ROS 2 installed as Python wheels; on an ordinary ROS installation it changes nothing.
#
# The wheels' generated targets name the Python headers of the machine that built the wheels, below /opt/python, and CMake
# stops at an imported include directory that does not exist. rosidl_generate_interfaces finds the real headers by itself, so
# the dead entries are dropped. Some of the targets are imported only inside rosidl_generate_interfaces: hence the deferral
# to the end of the directory.

function(_seqamodal_drop_dead_includes)
  get_directory_property(targets IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(includes ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT includes)
      continue()
    endif()
    set(kept "")
    foreach(directory IN LISTS includes)
      if(EXISTS "${directory}" OR NOT directory MATCHES "^/opt/python/")
        list(APPEND kept "${directory}")
      endif()
    endforeach()
    if(NOT kept STREQUAL includes)
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
    endif()
  endforeach()
endfunction()

cmake_language(DEFER CALL _seqamodal_drop_dead_includes)
