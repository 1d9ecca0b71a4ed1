/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A member of a JSON object that another program wrote: what is missing, or of another type, has
 * the value given here.  And text for JSON of ours. */
#ifndef TD_LIB_JSON_GET_H
#define TD_LIB_JSON_GET_H

#include <jansson.h>
#include <stdbool.h>

long long td_json_number(const json_t *o, const char *key, long long otherwise);
const char *td_json_text(const json_t *o, const char *key); /* "": there is none; o's */
bool td_json_true(const json_t *o, const char *key);

/* Text of any origin, such as an error's: json_string() gives NULL where it was cut within a
 * character, or holds a name in another encoding, and with it what it stands in would be lost.
 * Here a character that was cut at the end is left out, and a byte that is no UTF-8 is a '?'. */
json_t *td_json_told(const char *text);

/* A name, of which no byte may get lost: of one that is no UTF-8, each byte beyond ASCII is shown
 * as \xHH. */
json_t *td_json_name(const char *name);

#endif
