/*
 * im_settings_read of a main file and the folder it includes: up to four texts, each behind its length. What the main
 * file of the input includes itself would be any folder of this machine, so only ours is there.
 */
#include "fuzz.h"
#include "input.h"

#include "base/conf.h"
#include <string.h>

enum { PROBLEMS = 8, TEXT_MAX = 16 << 10 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"conf.d/a.conf", "conf.d/B.conf", "conf.d/c.txt"};
	static char text[TEXT_MAX];
	struct im_conf_problem problems[PROBLEMS];
	struct input in = {data, size};
	struct im_settings s;
	char path[100];
	const uint8_t *bytes;
	size_t len, n = 0, used;

	if (memmem(data, size, "include_dir", 11))
		return 0;
	folder_clear();
	folder_put("conf.d/empty.conf", "", 0);
	len = input_bytes(&in, &bytes);
	used = (size_t)snprintf(text, sizeof(text), "plugin_opt_im_dir %s\ninclude_dir %s/conf.d\n", folder(), folder());
	len = len < sizeof(text) - used ? len : sizeof(text) - used;
	if (len > 0)
		memcpy(text + used, bytes, len);
	folder_put("main.conf", text, used + len);
	for (unsigned i = 0; i < 3 && in.size > 0; i++) {
		len = input_bytes(&in, &bytes);
		folder_put(names[i], bytes, len);
	}
	(void)snprintf(path, sizeof(path), "%s/main.conf", folder());
	memset(problems, 0, sizeof(problems));
	if (im_settings_read(path, &s, problems, PROBLEMS, &n) == IM_OK) {
		must(s.dir && s.node >= 1);
		im_settings_finish(&s);
	} else {
		must(n > 0);
	}
	for (size_t i = 0; i < n && i < PROBLEMS; i++)
		must(memchr(problems[i].text, '\0', sizeof(problems[i].text)) && problems[i].text[0]);
	return 0;
}
