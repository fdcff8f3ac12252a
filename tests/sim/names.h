/* The plugin's end of the bus and the service's have the same names: here the plugin's get others. */
#ifndef TESTS_SIM_NAMES_H
#define TESTS_SIM_NAMES_H

#include "limits.h"

#define link_create plugin_link_create
#define link_destroy plugin_link_destroy
#define link_service plugin_link_service
#define link_is_up plugin_link_is_up
#define link_session plugin_link_session
#define link_closed plugin_link_closed
#define link_control plugin_link_control
#define link_signal plugin_link_signal
#define link_frame plugin_link_frame
#define link_tick plugin_link_tick
#define link_on_roster plugin_link_on_roster
#define link_on_query plugin_link_on_query
#define link_stats plugin_link_stats

#endif
