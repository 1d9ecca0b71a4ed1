/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the host says of one disk (lib/disk-words.h), between tapdisk.conf and its own words. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lib/disk-words.h"
#include "lib/fiber/call.h"
#include "tapdisk/ctl/ctl-ops.h"

struct words_call {
	char *path; /* a copy: the caller's may go away meanwhile */
	char words[TD_DISK_WORDS], file[PATH_MAX];
	struct td_err *err;
};

static long words_run(void *arg)
{
	struct words_call *c = arg;

	return td_disks_any() ? td_disk_words(c->path, c->words, c->file, c->err) : 0;
}

int ctl_add_disk_words(const char *spec, struct vbd_options *o, struct td_err *err)
{
	const char *colon = strchr(spec, ':');
	struct words_call c = {.err = err};
	char *word, *next = c.words;
	struct td_err why = {0};
	int rc;

	c.path = strdup(colon ? colon + 1 : "");
	if (!c.path)
		return td_fail(err, ENOMEM, "out of memory");
	rc = (int)td_call(words_run, &c);
	while (!rc && (word = strsep(&next, "\n")) && *word) {
		rc = options_add(o, word, &why);
		if (rc < 0)
			td_fail(err, -rc, "%s: %.1000s", c.file, why.text);
		else
			td_log(LOG_INFO, "%s: %s, says %s", c.path, word, c.file);
	}
	free(c.path);
	return rc;
}
