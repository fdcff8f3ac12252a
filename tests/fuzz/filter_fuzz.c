/* im_filter_parse, im_filter_matches: "{filter}\n{topic}". What is not granted may not match what is ours. */
#include "fuzz.h"

#include "wire/topic.h"
#include <string.h>

/* The rule of MQTT again, written another way: by recursion over the text. */
static bool model_matches(const char *f, const char *t)
{
	if (strcmp(f, "#") == 0)
		return true;
	if (*f == '+' && (f[1] == '/' || f[1] == '\0')) {
		t += strcspn(t, "/");
		f++;
	} else {
		while (*f && *f != '/' && *f == *t) {
			f++;
			t++;
		}
		if ((*f && *f != '/') || (*t && *t != '/'))
			return false;
	}
	if (*f == '\0' && *t == '\0')
		return true;
	if (*t == '\0')
		return strcmp(f, "/#") == 0;
	return *f == '/' && model_matches(f + 1, t + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), *topic;
	struct im_filter f;
	struct im_topic t;
	bool matches;

	if (!text)
		return 0;
	topic = strchr(text, '\n');
	if (topic)
		*topic++ = '\0';
	else
		topic = text + strlen(text);
	im_filter_parse(text, &f);
	must((f.kind == IM_FILTER_BAD) == (f.why != NULL));
	matches = im_filter_matches(text, topic);
	if (!strchr(text, '#') || !text[strcspn(text, "#") + 1]) /* with '#' in the middle it is no filter */
		must(matches == ((*topic != '$' || (*text != '+' && *text != '#')) && model_matches(text, topic)));
	im_topic_parse(topic, &t);
	if (matches && t.kind == IM_TOPIC_INBOX && *text != '+' && *text != '#')
		must(f.kind == IM_FILTER_INBOX ? f.codec == t.codec : f.kind == IM_FILTER_BAD);
	free(text);
	return 0;
}
