/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The volumes of a group: asked of lvs and pvs, whose JSON says where on which disk a volume
 * begins, so that those that are not active can be read too.
 *
 * One thing: scan asks here for a group's volumes, and each is added to what scan looks at.
 */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/vhd-util/vhd-util-scan.h"
#include "lib/json-get.h"

extern char **environ;

static int run_json(char *const argv[], json_t **out, struct td_err *err)
{
	posix_spawn_file_actions_t acts;
	int fds[2], rc, status = 0;
	json_error_t why;
	pid_t pid;
	FILE *f;

	if (pipe(fds) < 0)
		return td_fail(err, errno, "cannot make a pipe to run %s: %s", argv[0],
			       strerror(errno));
	posix_spawn_file_actions_init(&acts);
	posix_spawn_file_actions_adddup2(&acts, fds[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&acts, fds[0]);
	posix_spawn_file_actions_addclose(&acts, fds[1]);
	rc = posix_spawnp(&pid, argv[0], &acts, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&acts);
	close(fds[1]);
	if (rc) {
		close(fds[0]);
		return td_fail(err, rc, "cannot run %s: %s; -l needs LVM's tools (Debian: lvm2)",
			       argv[0], strerror(rc));
	}
	f = fdopen(fds[0], "r");
	*out = f ? json_loadf(f, 0, &why) : NULL;
	if (f)
		fclose(f);
	else
		close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!status && *out)
		return 0;
	json_decref(*out);
	*out = NULL;
	if (status)
		return td_fail(err, EIO, "%s %s failed: its message is above", argv[0], argv[1]);
	return td_fail(err, EIO, "the output of %s is not the JSON that is expected: %s", argv[0],
		       why.text);
}

static json_t *rows(json_t *report, const char *kind)
{
	return json_object_get(json_array_get(json_object_get(report, "report"), 0), kind);
}

static uint64_t number(json_t *row, const char *key)
{
	return strtoull(td_json_text(row, key), NULL, 10);
}

/* Bytes of the disk before its first extent. */
static uint64_t extents_start(json_t *pvs, const char *device, size_t len)
{
	json_t *row;
	size_t i;

	json_array_foreach (rows(pvs, "pv"), i, row) {
		const char *name = td_json_text(row, "pv_name");

		if (strlen(name) == len && !memcmp(name, device, len))
			return number(row, "pe_start");
	}
	return 0;
}

/* A row is a segment; the first of a volume, when it is in one piece, tells where the volume
 * begins: "/dev/sda(25)". */
static int add_segment(json_t *row, json_t *pvs, struct vu_targets *all, struct td_err *err)
{
	const char *name = td_json_text(row, "lv_name"), *device = td_json_text(row, "devices"),
		   *open = strrchr(device, '(');
	uint64_t extent = number(row, "vg_extent_size"),
		 first = open ? strtoull(open + 1, NULL, 10) : 0;
	struct vu_target *t;

	if (number(row, "seg_start") || !*name)
		return 0;
	t = vu_target_add(all, name);
	if (!t)
		return td_fail(err, ENOMEM, "out of memory");
	t->size = number(row, "lv_size");
	t->length = number(row, "seg_size");
	if (!open || strchr(device, ',') || strcmp(td_json_text(row, "segtype"), "linear"))
		return 0; /* striped or mirrored: through its own device, if it is active */
	t->start = extents_start(pvs, device, (size_t)(open - device)) + first * extent;
	t->device = strndup(device, (size_t)(open - device));
	return t->device ? 0 : td_fail(err, ENOMEM, "out of memory");
}

int vu_lvm_volumes(const char *vg, struct vu_targets *all, struct td_err *err)
{
	char *lvs[] = {
		"lvs",      "--reportformat",
		"json",     "--units",
		"b",        "--nosuffix",
		"-o",       "lv_name,lv_size,segtype,seg_start,seg_size,devices,vg_extent_size",
		(char *)vg, NULL};
	char *pvs[] = {"pvs", "--reportformat",   "json", "--units", "b", "--nosuffix",
		       "-o",  "pv_name,pe_start", NULL};
	json_t *volumes = NULL, *disks = NULL, *row;
	size_t i;
	int rc;

	if (*vg == '-')
		return td_fail(err, EINVAL, "'%s' is no volume group", vg);
	rc = run_json(lvs, &volumes, err);
	if (!rc)
		rc = run_json(pvs, &disks, err);
	if (!rc)
		json_array_foreach (rows(volumes, "lv"), i, row) {
			rc = add_segment(row, disks, all, err);
			if (rc < 0)
				break;
		}
	json_decref(volumes);
	json_decref(disks);
	return rc;
}

bool vu_lvm_volume_of(char *path)
{
	char *from = strrchr(path, '/') ? strrchr(path, '/') + 1 : path, *to = path;
	bool dash = false;

	for (char *p = from; *p; p++) {
		if (*p == '-' && p[1] != '-') { /* a single one parts group and volume */
			to = path;
			dash = true;
			continue;
		}
		if (*p == '-')
			p++;
		*to++ = *p;
	}
	*to = 0;
	return dash;
}
