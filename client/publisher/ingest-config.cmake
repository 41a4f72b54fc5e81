# find_package(ingest) gives ingest::ingest, the shared library, and ingest::ingest-static.
include(CMakeFindDependencyMacro)
get_filename_component(INGEST_LIBRARIES ${CMAKE_CURRENT_LIST_DIR}/../.. ABSOLUTE)
find_path(INGEST_INCLUDE_DIR ingest/publisher.h REQUIRED NO_DEFAULT_PATH
  HINTS ${INGEST_LIBRARIES}/../include ${INGEST_LIBRARIES}/../../include)

if(NOT TARGET ingest::ingest)
  add_library(ingest::ingest SHARED IMPORTED)
  set_target_properties(ingest::ingest PROPERTIES IMPORTED_LOCATION ${INGEST_LIBRARIES}/libingest.so
    INTERFACE_INCLUDE_DIRECTORIES ${INGEST_INCLUDE_DIR})
  find_dependency(PkgConfig)
  find_dependency(Threads)
  pkg_check_modules(INGEST_NEEDS QUIET IMPORTED_TARGET grpc libprotobuf-c) # for the static one only
  if(INGEST_NEEDS_FOUND)
    add_library(ingest::ingest-static STATIC IMPORTED)
    set_target_properties(ingest::ingest-static PROPERTIES IMPORTED_LOCATION ${INGEST_LIBRARIES}/libingest.a
      INTERFACE_INCLUDE_DIRECTORIES ${INGEST_INCLUDE_DIR}
      INTERFACE_LINK_LIBRARIES "PkgConfig::INGEST_NEEDS;Threads::Threads;m")
  endif()
endif()
