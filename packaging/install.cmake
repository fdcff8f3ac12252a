# Run by cmake --install: what depends on the prefix. /usr has its configuration in /etc, every other prefix its own.
cmake_minimum_required(VERSION 3.25) # an install script begins with the policies of old
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(ETC /etc/mosquitto-im)
else()
  set(ETC ${CMAKE_INSTALL_PREFIX}/etc/mosquitto-im)
endif()
set(root "$ENV{DESTDIR}")
file(READ ${source}/systemd/sandbox.conf SANDBOX)

foreach(unit broker seqgen offline api push@)
  configure_file(${source}/systemd/mosquitto-im-${unit}.service.in
    ${root}${CMAKE_INSTALL_PREFIX}/lib/systemd/system/mosquitto-im-${unit}.service @ONLY)
endforeach()
# One program is six bridges, by the name it is called by.
foreach(vendor huawei harmony xiaomi oppo vivo honor)
  file(CREATE_LINK im-vendor-bridge ${root}${LIBEXEC}/im-${vendor}-bridge SYMBOLIC)
endforeach()
configure_file(${source}/systemd/mosquitto-im.sysusers ${root}${CMAKE_INSTALL_PREFIX}/lib/sysusers.d/mosquitto-im.conf @ONLY)

# What an admin has changed stays.
if(NOT EXISTS ${root}${ETC}/broker.conf)
  file(READ ${broker_conf} conf)
  string(REPLACE "@DIR@/conf.d" "${ETC}/conf.d" conf "${conf}")
  string(REPLACE "@DIR@" "${STATE}" conf "${conf}")
  string(REPLACE "@PLUGIN@" "${PLUGIN}" conf "${conf}")
  string(REPLACE "@USER@" "#user mosquitto-im" conf "${conf}")
  file(WRITE ${root}${ETC}/broker.conf "${conf}")
endif()
if(NOT EXISTS ${root}${ETC}/conf.d/listeners.conf)
  configure_file(${source}/systemd/listeners.conf ${root}${ETC}/conf.d/listeners.conf @ONLY)
endif()
