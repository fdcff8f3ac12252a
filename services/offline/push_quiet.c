/*
 * The C library knows one zone at a time, that of TZ. Only the loop's thread asks for local time here, and nobody else in
 * this process does (logs are in UTC), so switching it is safe. A day of 23 or 25 hours needs no care: the end is looked for
 * as a local time.
 */
#include "push_quiet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ZONE_MAX 64u
#define ZONES "/usr/share/zoneinfo/"

/* Seconds east of UTC; false: not of the form +HH:MM. */
static bool fixed_offset(const char *zone, int *seconds)
{
	unsigned h, m;
	char sign, rest;

	if (strcmp(zone, "UTC") == 0) {
		*seconds = 0;
		return true;
	}
	/* NOLINTNEXTLINE(cert-err34-c): two digits */
	if (strlen(zone) != 6 || sscanf(zone, "%c%2u:%2u%c", &sign, &h, &m, &rest) != 3 || (sign != '+' && sign != '-') || h > 14 || m > 59)
		return false;
	*seconds = (int)(h * 3600 + m * 60) * (sign == '+' ? 1 : -1);
	return true;
}

static bool is_name(const char *zone)
{
	size_t len = strlen(zone);

	return len > 0 && len <= ZONE_MAX && zone[0] != '/' && !strstr(zone, "..") &&
	       strspn(zone, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/_+-") == len;
}

bool quiet_zone_known(const char *zone)
{
	char path[sizeof(ZONES) + ZONE_MAX];
	int seconds;

	if (fixed_offset(zone, &seconds))
		return true;
	if (!is_name(zone))
		return false;
	(void)snprintf(path, sizeof(path), "%s%s", ZONES, zone);
	return access(path, R_OK) == 0;
}

static void switch_to(const char *zone)
{
	static char current[ZONE_MAX + 2];
	char wanted[ZONE_MAX + 2];

	(void)snprintf(wanted, sizeof(wanted), ":%s", zone);
	if (strcmp(wanted, current) == 0)
		return;
	(void)setenv("TZ", wanted, 1); /* out of memory: the zone before */
	tzset();
	memcpy(current, wanted, sizeof(current));
}

static void local_time(time_t t, const char *zone, struct tm *out)
{
	int seconds;

	if (fixed_offset(zone, &seconds)) {
		t += seconds;
		(void)gmtime_r(&t, out); /* fails only beyond the year 2^31 */
		return;
	}
	switch_to(zone);
	(void)localtime_r(&t, out); /* as above */
}

/* UTC of that minute on that local day. */
static time_t at_minute(const struct tm *day, const char *zone, unsigned minute, int days_on)
{
	struct tm tm = { .tm_year = day->tm_year, .tm_mon = day->tm_mon, .tm_mday = day->tm_mday + days_on,
			 .tm_hour = (int)(minute / 60), .tm_min = (int)(minute % 60), .tm_isdst = -1 };
	int seconds;

	return fixed_offset(zone, &seconds) ? timegm(&tm) - seconds : mktime(&tm);
}

int64_t quiet_until(int64_t now_ms, const char *zone, unsigned from_min, unsigned to_min)
{
	unsigned minute;
	struct tm tm;
	bool inside;

	if (from_min == to_min || !quiet_zone_known(zone))
		return 0;
	local_time((time_t)(now_ms / 1000), zone, &tm);
	minute = (unsigned)tm.tm_hour * 60 + (unsigned)tm.tm_min;
	inside = from_min < to_min ? minute >= from_min && minute < to_min : minute >= from_min || minute < to_min;
	if (!inside)
		return 0;
	return (int64_t)at_minute(&tm, zone, to_min, minute >= to_min) * 1000;
}
