/* Retry-After (RFC 9110 10.2.3): delta-seconds, or an HTTP-date in one of its three forms (5.6.7). */
#include "push/driver.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define LEAST_MS 1000
#define MOST_MS 3600000

static int64_t clamp(int64_t ms)
{
	if (ms < LEAST_MS)
		return LEAST_MS;
	return ms > MOST_MS ? MOST_MS : ms;
}

/* 0: not a number. More digits than matter are simply "very long". */
static int64_t seconds_ms(const char *text, size_t len)
{
	int64_t s = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return 0;
		if (s < MOST_MS)
			s = s * 10 + (text[i] - '0');
	}
	return clamp(s * 1000);
}

static int month(const char *name)
{
	static const char names[] = "janfebmaraprmayjunjulaugsepoctnovdec";

	for (int i = 0; i < 12; i++)
		if (strncasecmp(names + (size_t)3 * (size_t)i, name, 3) == 0)
			return i;
	return -1;
}

/* strptime would go by the locale. */
static bool read_date(const char *text, struct tm *t)
{
	char name[4] = "", zone[4] = "";
	int end = 0;

	memset(t, 0, sizeof(*t));
	/* NOLINTBEGIN(cert-err34-c): no number here is longer than four digits */
	if (sscanf(text, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d %3[A-Za-z]%n", &t->tm_mday, name, &t->tm_year, &t->tm_hour, &t->tm_min,
		   &t->tm_sec, zone, &end) == 7) {
		t->tm_year -= 1900;
	} else if (sscanf(text, "%*9[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d %3[A-Za-z]%n", &t->tm_mday, name, &t->tm_year, &t->tm_hour,
			  &t->tm_min, &t->tm_sec, zone, &end) == 7) {
		t->tm_year += 100; /* such servers are gone; their years were of this century */
	} else if (sscanf(text, "%*3[A-Za-z] %3[A-Za-z] %2d %2d:%2d:%2d %4d%n", name, &t->tm_mday, &t->tm_hour, &t->tm_min, &t->tm_sec,
			  &t->tm_year, &end) == 6) {
		t->tm_year -= 1900;
		memcpy(zone, "GMT", 4);
	} else {
		return false;
	}
	/* NOLINTEND(cert-err34-c) */
	t->tm_mon = month(name);
	return t->tm_mon >= 0 && strcasecmp(zone, "GMT") == 0 && t->tm_mday >= 1 && t->tm_mday <= 31 && t->tm_hour >= 0 && t->tm_hour < 24 &&
	       t->tm_min >= 0 && t->tm_min < 60 && t->tm_sec >= 0 && t->tm_sec <= 60 && t->tm_year >= 70 && text[end] == '\0';
}

int64_t push_retry_after(const char *value, int64_t now_ms)
{
	char text[64];
	struct tm t;
	size_t len;

	if (!value)
		return 0;
	value += strspn(value, " \t");
	len = strlen(value);
	while (len && (value[len - 1] == ' ' || value[len - 1] == '\t'))
		len--;
	if (len == 0 || len >= sizeof(text))
		return 0;
	memcpy(text, value, len);
	text[len] = '\0';
	if (strspn(text, "0123456789") == len)
		return seconds_ms(text, len);
	return read_date(text, &t) ? clamp((int64_t)timegm(&t) * 1000 - now_ms) : 0;
}
