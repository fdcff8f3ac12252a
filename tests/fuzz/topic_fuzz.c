/* im_topic_parse: spans stay inside the text, and what begins with im/ is never ordinary. */
#include "fuzz.h"

#include "wire/topic.h"
#include <string.h>

static void inside(const char *text, size_t len, struct im_span s)
{
	must(s.len == 0 || (s.text >= text && s.text + s.len <= text + len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct im_topic t;
	size_t len;

	if (!text)
		return 0;
	len = strlen(text);
	im_topic_parse(text, &t);
	inside(text, len, t.conv);
	inside(text, len, t.id);
	inside(text, len, t.method);
	must((t.kind == IM_TOPIC_BAD) == (t.why != NULL));
	must(t.kind != IM_TOPIC_PLAIN || (strncmp(text, "im/", 3) != 0 && strncmp(text, "$im/", 4) != 0));
	if (t.kind == IM_TOPIC_TO || t.kind == IM_TOPIC_SIG)
		must(t.conv.len > 2 && im_name_valid(t.conv.text + 2, t.conv.len - 2));
	if (t.kind == IM_TOPIC_REQ)
		must(im_id_valid(t.id.text, t.id.len) && t.method.len > 0);
	free(text);
	return 0;
}
