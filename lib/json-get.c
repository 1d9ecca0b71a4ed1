/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/json-get.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

long long td_json_number(const json_t *o, const char *key, long long otherwise)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) ? (long long)json_integer_value(v) : otherwise;
}

const char *td_json_text(const json_t *o, const char *key)
{
	const char *v = json_string_value(json_object_get(o, key));

	return v ? v : "";
}

bool td_json_true(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

/* Bytes of the character at text, as its first one says; 0: none begins so. */
static size_t length_of(const char *text)
{
	unsigned char c = (unsigned char)*text;

	return c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
}

static bool is_character(const char *text, size_t n)
{
	json_t *o = n && strnlen(text, n) == n ? json_stringn(text, n) : NULL;

	json_decref(o);
	return o;
}

json_t *td_json_told(const char *text)
{
	json_t *o = json_string(text);
	char *out = o ? NULL : strdup(text), *to = out;

	for (const char *at = text; out && *at;) {
		size_t n = length_of(at), left = strlen(at);

		if (n > 1 && left < n)
			break; /* it was cut here */
		if (!is_character(at, n)) {
			*to++ = '?';
			at++;
			continue;
		}
		memcpy(to, at, n);
		to += n;
		at += n;
	}
	if (out) {
		*to = 0;
		o = json_string(out);
		free(out);
	}
	return o;
}

json_t *td_json_name(const char *name)
{
	json_t *o = json_string(name);
	char *all = o ? NULL : malloc(4 * strlen(name) + 1), *to = all;

	for (const char *p = name; all && *p; p++)
		to += sprintf(to, (unsigned char)*p < 0x80 ? "%c" : "\\x%02x", (unsigned char)*p);
	if (all) {
		*to = 0;
		o = json_string(all);
		free(all);
	}
	return o ? o : json_null();
}
