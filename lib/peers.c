/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/peers.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define DRBD_MAJOR  147 /* Documentation/admin-guide/devices.txt of Linux */
#define DEPTH_MAX   8   /* devices upon devices */
#define GFS2_MAGIC  0x01161970
#define OCFS2_MAGIC 0x7461636f

int td_host_path(char *out, size_t size, const char *fmt, ...)
{
	const char *root = getenv(TD_HOST_ROOT_ENV);
	int at = snprintf(out, size, "%s", root ? root : ""), n;
	va_list ap;

	if (at < 0 || (size_t)at >= size)
		return -ENAMETOOLONG;
	va_start(ap, fmt);
	n = vsnprintf(out + at, size - (size_t)at, fmt, ap);
	va_end(ap);
	return n < 0 || (size_t)n >= size - (size_t)at ? -ENAMETOOLONG : 0;
}

const char *td_peer_name(enum td_peer role)
{
	static const char *const names[] = {
		[TD_PEER_NONE] = "none",           [TD_PEER_AWAY] = "Unknown",
		[TD_PEER_SECONDARY] = "Secondary", [TD_PEER_UNSEEN] = "unreadable",
		[TD_PEER_PRIMARY] = "Primary",
	};

	return names[role];
}

/* --- which devices --- */

static void add(struct td_peers *p, unsigned minor)
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->minor[i] == minor)
			return;
	if (p->n < TD_PEERS_MAX)
		p->minor[p->n++] = minor;
}

static bool read_dev(const char *path, unsigned *maj, unsigned *min)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fscanf(f, "%u:%u", maj, min) == 2;

	if (f)
		fclose(f);
	return ok;
}

static void find(unsigned maj, unsigned min, unsigned depth, struct td_peers *out);

static void find_below(unsigned maj, unsigned min, const char *up, unsigned depth,
		       struct td_peers *out)
{
	char dir[PATH_MAX], path[PATH_MAX + 300];
	struct dirent *e;
	unsigned a, b;
	DIR *d;

	if (td_host_path(dir, sizeof dir, "/sys/dev/block/%u:%u/%sslaves", maj, min, up))
		return;
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s/dev", dir, e->d_name);
		if (read_dev(path, &a, &b))
			find(a, b, depth + 1, out);
	}
	if (d)
		closedir(d);
}

static void find(unsigned maj, unsigned min, unsigned depth, struct td_peers *out)
{
	char path[PATH_MAX];
	unsigned a, b;

	if (maj == DRBD_MAJOR) {
		add(out, min);
		return; /* what is below it is this host's half */
	}
	if (depth >= DEPTH_MAX)
		return;
	/* a partition: its disk stands one level up */
	if (!td_host_path(path, sizeof path, "/sys/dev/block/%u:%u/partition", maj, min) &&
	    !access(path, F_OK)) {
		td_host_path(path, sizeof path, "/sys/dev/block/%u:%u/../dev", maj, min);
		if (read_dev(path, &a, &b))
			find(a, b, depth + 1, out);
		return;
	}
	find_below(maj, min, "", depth, out);
}

void td_peers_find(dev_t dev, struct td_peers *out)
{
	out->n = 0;
	find(major(dev), minor(dev), 0, out);
}

void td_peers_find_image(const char *path, struct td_peers *out)
{
	struct statfs fs;
	struct stat st;

	out->n = 0;
	if (path[0] != '/' || stat(path, &st) < 0)
		return;
	if (S_ISBLK(st.st_mode))
		td_peers_find(st.st_rdev, out);
	else if (S_ISREG(st.st_mode) && !statfs(path, &fs) && fs.f_type != GFS2_MAGIC &&
		 fs.f_type != OCFS2_MAGIC)
		td_peers_find(st.st_dev, out);
}

/* --- and their peers --- */

static enum td_peer role_of(const char *word)
{
	return !strcmp(word, "Primary")     ? TD_PEER_PRIMARY
	       : !strcmp(word, "Secondary") ? TD_PEER_SECONDARY
					    : TD_PEER_AWAY;
}

/* " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----", one line for each device,
 * or for each of its peers. */
static void read_roles(const char *path, const struct td_peers *p, enum td_peer *roles,
		       struct td_peers_view *out)
{
	FILE *f = fopen(path, "re");
	char line[512], word[16], half[16], flags[8];
	enum td_peer role;
	unsigned minor;
	int n;

	while (f && fgets(line, sizeof line, f)) {
		n = sscanf(line,
			   " %u: cs:%*63s ro:%*31[^/]/%15[A-Za-z] ds:%*31[^/]/%15[A-Za-z] %*c %7s",
			   &minor, word, half, flags);
		if (n < 2)
			continue;
		role = role_of(word);
		for (unsigned i = 0; i < p->n; i++) {
			if (p->minor[i] != minor)
				continue;
			if (role > roles[i])
				roles[i] = role;
			/* s: its I/O waits, until the peer has been turned off */
			if (role == TD_PEER_AWAY && n == 4 && !strcmp(half, "DUnknown") &&
			    flags[0] != 's') {
				out->cut_off = true;
				out->cut = minor;
			}
		}
	}
	if (f)
		fclose(f);
}

void td_peers_look(const struct td_peers *p, struct td_peers_view *out)
{
	enum td_peer roles[TD_PEERS_MAX] = {TD_PEER_NONE};
	char path[PATH_MAX];
	glob_t g;

	*out = (struct td_peers_view){.role = TD_PEER_NONE};
	if (!p->n)
		return;
	if (!td_host_path(path, sizeof path, "/proc/drbd"))
		read_roles(path, p, roles, out);
	if (!td_host_path(path, sizeof path,
			  "/sys/kernel/debug/drbd/resources/*/connections/*/*/proc_drbd") &&
	    !glob(path, GLOB_NOSORT, NULL, &g)) {
		for (size_t i = 0; i < g.gl_pathc; i++)
			read_roles(g.gl_pathv[i], p, roles, out);
		globfree(&g);
	}
	for (unsigned i = 0; i < p->n; i++) {
		if (roles[i] == TD_PEER_NONE)
			roles[i] = TD_PEER_UNSEEN;
		if (roles[i] > out->role) {
			out->role = roles[i];
			out->device = p->minor[i];
		}
	}
}
