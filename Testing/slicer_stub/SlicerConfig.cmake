# Stands in for a build of Slicer: installs the files that the modules declare as Slicer's packages
# do, and fails where one is missing.

if(COMMAND slicerMacroBuildScriptedModule)
  return() # included again in place of Slicer's other files
endif()

set(Slicer_FOUND TRUE)
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_FILE})
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_FILE})
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_FILE})
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)

include(CTest)

function(require_declared file)
  if(IS_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/${file}
      OR NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
    message(FATAL_ERROR "${file} is declared in ${CMAKE_CURRENT_LIST_FILE}, but no such file")
  endif()
endfunction()

function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(PARSE_ARGV 0 MODULE "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES")
  if(MODULE_UNPARSED_ARGUMENTS OR NOT MODULE_NAME)
    message(FATAL_ERROR "no name, or unknown arguments: ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MODULE_SCRIPTS} ${MODULE_RESOURCES})
    require_declared(${file})
    get_property(installed GLOBAL PROPERTY installed)
    if(file IN_LIST installed)
      message(FATAL_ERROR "two modules have ${file}, and all of them share one folder")
    endif()
    set_property(GLOBAL APPEND PROPERTY installed ${file})
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${file} DESTINATION ${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/${folder})
  endforeach()
endfunction()

function(slicer_add_python_unittest)
  cmake_parse_arguments(PARSE_ARGV 0 TEST "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS")
  require_declared(${TEST_SCRIPT})
  get_filename_component(name ${TEST_SCRIPT} NAME_WE)
  add_test(NAME py_${TEST_TESTNAME_PREFIX}${name} COMMAND ${CMAKE_COMMAND} -E true)
endfunction()
