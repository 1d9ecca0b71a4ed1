/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/json-get.h"

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
