/*
 * The one difficult idea: a cut goes between grapheme clusters. All of Unicode's rules need tables of 1400 ranges; these
 * are the ones that chats meet - marks, joiners, modifiers, variation selectors, flags, keycaps, Hangul -, and a wrong guess shows a
 * strange last character before the ellipsis, nothing worse.
 */
#include "push/text.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#define REPLACEMENT 0xfffdu
#define JOINER 0x200du

/* ---- characters */

/* The next code point of at most 4 bytes; *n = how many it takes. What is no UTF-8 is U+FFFD, byte by byte. */
static uint32_t next_code(const char *text, size_t *n)
{
	const uint8_t *s = (const uint8_t *)text;
	uint32_t c = s[0], least;
	size_t more;

	*n = 1;
	if (c < 0x80)
		return c;
	if (c >= 0xc2 && c < 0xe0)
		more = 1, least = 0x80, c &= 0x1f;
	else if (c >= 0xe0 && c < 0xf0)
		more = 2, least = 0x800, c &= 0x0f;
	else if (c >= 0xf0 && c < 0xf5)
		more = 3, least = 0x10000, c &= 0x07;
	else
		return REPLACEMENT;
	for (size_t i = 1; i <= more; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return REPLACEMENT; /* also the NUL at the end */
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return REPLACEMENT;
	*n = more + 1;
	return c;
}

static size_t put_code(char out[4], uint32_t c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

static size_t json_size(uint32_t c)
{
	char bytes[4];

	if (c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t' || c == '\b' || c == '\f')
		return 2;
	return c < 0x20 ? 6 : put_code(bytes, c);
}

/* Belongs to the character before it. */
static bool is_extending(uint32_t c)
{
	static const uint32_t ranges[][2] = {
		{0x300, 0x36f},   {0x483, 0x489},   {0x591, 0x5bd},   {0x5bf, 0x5c7},   {0x610, 0x61a},   {0x64b, 0x65f},
		{0x670, 0x670},   {0x6d6, 0x6ed},   {0x711, 0x711},   {0x730, 0x74a},   {0x900, 0x903},   {0x93a, 0x94f},
		{0x951, 0x957},   {0x962, 0x963},   {0x981, 0x983},   {0x9bc, 0x9cd},   {0xa01, 0xa03},   {0xa3c, 0xa51},
		{0xa81, 0xa83},   {0xabc, 0xacd},   {0xb01, 0xb03},   {0xb3c, 0xb57},   {0xb82, 0xb82},   {0xbbe, 0xbcd},
		{0xc00, 0xc04},   {0xc3c, 0xc56},   {0xc81, 0xc83},   {0xcbc, 0xcd6},   {0xd00, 0xd03},   {0xd3b, 0xd4d},
		{0xe31, 0xe31},   {0xe33, 0xe3a},   {0xe47, 0xe4e},   {0xeb1, 0xebc},   {0xec8, 0xece},   {0x1160, 0x11ff},
		{0x1ab0, 0x1ace}, {0x1dc0, 0x1dff}, {0x200c, 0x200d}, {0x20d0, 0x20f0}, {0x302a, 0x302f}, {0x3099, 0x309a},
		{0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}, {0x1f3fb, 0x1f3ff}, {0xe0020, 0xe007f}, {0xe0100, 0xe01ef},
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]) && c >= ranges[i][0]; i++)
		if (c <= ranges[i][1])
			return true;
	return false;
}

static bool is_flag_letter(uint32_t c)
{
	return c >= 0x1f1e6 && c <= 0x1f1ff;
}

struct cluster {
	uint32_t last;
	unsigned letters; /* flag letters in a row before here */
};

/* May the text be cut before `c`? Keeps what it needs to judge the next. */
static bool begins_cluster(struct cluster *k, uint32_t c)
{
	bool begins = !is_extending(c) && k->last != JOINER && !(k->last == '\r' && c == '\n') && !(is_flag_letter(c) && k->letters % 2);

	k->letters = is_flag_letter(c) ? k->letters + 1 : 0;
	k->last = c;
	return begins;
}

/* ---- cutting */

bool push_text_fit(struct im_buf *out, const char *text, size_t most, bool json)
{
	const size_t ellipsis = strlen(PUSH_ELLIPSIS), begin = out->len;
	struct cluster k = {0, 0};
	size_t used = 0, cut = begin, n, len; /* cut: the last place where an ellipsis would fit */
	char bytes[4];

	for (; *text; text += n) {
		uint32_t c = next_code(text, &n);

		if (begins_cluster(&k, c) && used + ellipsis <= most)
			cut = out->len;
		len = put_code(bytes, c);
		used += json ? json_size(c) : len;
		if (used > most) {
			out->len = out->failed ? out->len : cut;
			if (most >= ellipsis)
				im_buf_add_str(out, PUSH_ELLIPSIS);
			return true;
		}
		im_buf_add(out, bytes, len);
	}
	return false;
}

size_t push_text_json_size(const char *text)
{
	size_t size = 0, n;

	for (; *text; text += n)
		size += json_size(next_code(text, &n));
	return size;
}

void push_text_json(struct im_buf *out, const char *text)
{
	static const char plain[] = "\"\\\n\r\t\b\f", letter[] = "\"\\nrtbf";

	im_buf_add_char(out, '"');
	for (; *text; text++) {
		const char *at = strchr(plain, *text);

		if (at) {
			im_buf_add_char(out, '\\');
			im_buf_add_char(out, letter[at - plain]);
		} else if ((unsigned char)*text < 0x20) {
			im_buf_printf(out, "\\u%04x", (unsigned)*text);
		} else {
			im_buf_add_char(out, *text);
		}
	}
	im_buf_add_char(out, '"');
}

/* ---- the general text */

/* More exact tags before shorter ones. */
static const struct {
	const char *language, *text;
} general[] = {
	{"zh-Hant", "新訊息"},     {"zh-TW", "新訊息"},      {"zh-HK", "新訊息"},          {"zh-MO", "新訊息"},         {"zh", "新消息"},
	{"en", "New message"},    {"de", "Neue Nachricht"}, {"fr", "Nouveau message"},    {"es", "Nuevo mensaje"},    {"pt", "Nova mensagem"},
	{"it", "Nuovo messaggio"}, {"nl", "Nieuw bericht"}, {"pl", "Nowa wiadomość"},     {"ru", "Новое сообщение"},  {"uk", "Нове повідомлення"},
	{"tr", "Yeni mesaj"},     {"ar", "رسالة جديدة"},    {"he", "הודעה חדשה"},         {"fa", "پیام جدید"},        {"hi", "नया संदेश"},
	{"bn", "নতুন বার্তা"},      {"th", "ข้อความใหม่"},     {"vi", "Tin nhắn mới"},       {"id", "Pesan baru"},       {"ms", "Mesej baharu"},
	{"ja", "新着メッセージ"},  {"ko", "새 메시지"},       {"sv", "Nytt meddelande"},    {"da", "Ny besked"},        {"nb", "Ny melding"},
	{"no", "Ny melding"},     {"fi", "Uusi viesti"},    {"cs", "Nová zpráva"},        {"hu", "Új üzenet"},        {"ro", "Mesaj nou"},
	{"el", "Νέο μήνυμα"},
};

/* Up to a border of the tag: zh-Hant has zh-Hant-TW in it, not zh-Hans. Some systems write zh_Hant. */
static bool has_within(const char *language, const char *tag)
{
	for (; *language; language++, tag++)
		if (tolower((unsigned char)*tag) != tolower((unsigned char)*language) && !(*tag == '_' && *language == '-'))
			return false;
	return *tag == '\0' || *tag == '-' || *tag == '_';
}

const char *push_text_general(const char *language)
{
	for (size_t i = 0; language && i < sizeof(general) / sizeof(general[0]); i++)
		if (has_within(general[i].language, language))
			return general[i].text;
	return "New message";
}
