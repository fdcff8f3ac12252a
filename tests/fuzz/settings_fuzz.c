/* im_settings_parse: any text ends in settings or in problems that say so. */
#include "fuzz.h"

#include "base/conf.h"
#include <string.h>

enum { PROBLEMS = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct im_conf_problem problems[PROBLEMS];
	struct im_settings s;
	bool fatal = false;
	size_t n = 0;

	if (memmem(data, size, "include_dir", 11)) /* would read whatever folder it names */
		return 0;
	memset(problems, 0, sizeof(problems));
	if (im_settings_parse("fuzz.conf", (const char *)data, size, &s, problems, PROBLEMS, &n) == IM_OK) {
		must(s.dir && s.node >= 1);
		im_settings_finish(&s);
		return 0;
	}
	must(n > 0);
	for (size_t i = 0; i < n && i < PROBLEMS; i++) {
		must(memchr(problems[i].text, '\0', sizeof(problems[i].text)));
		fatal = fatal || problems[i].fatal;
	}
	must(fatal || n > PROBLEMS);
	return 0;
}
