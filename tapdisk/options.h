/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options of a disk: the words after -o, which override the defaults of tapdisk.conf. */
#ifndef TAPDISK_OPTIONS_H
#define TAPDISK_OPTIONS_H

#include "tapdisk/limit.h"
#include "td/cache.h"
#include "td/block.h"
#include "td/ctl.h"
#include "td/log.h"

#define MIRROR_TIMEOUT 60 /* s */

struct vbd_options {
	const struct td_cache_mode *mode;
	bool unsafe; /* the second word that cache=unsafe asks for */
	bool report_enospc;
	bool shared;        /* other hosts write it too (w!) */
	bool two_primaries; /* O1 of tapdisk/vbd/peers.h is somebody else's care */
	bool read_only;
	bool parents_cache;   /* parents go through the page cache, whatever the mode says
				 (tapdisk/chain.h) */
	unsigned sector_size; /* bytes: the unit that the guest is told to use, 512 or 4096; 0: 512
			       */
	int request_timeout;  /* s until a store that does not answer is reported; 0: never */
	bool no_polling;      /* rings that do not say themselves are not polled (the host's) */
	int reconnect_limit;  /* s that an NBD server may be away while requests wait for it; 0:
				 without end; -1: none, requests fail at once */
	unsigned connections; /* to an NBD server whose URI does not say how many; 0: one */
	size_t ring_memory;   /* bytes, of all rings of the process; 0: as is built in */
	const char *io;       /* the I/O engine, of the host's choice; NULL: the one that suits */
	char name[TD_NAME_MAX]; /* whose disk it is, in its maker's words; "": it has none */
	char parent_dirs[1024]; /* where parents may be beside the leaf's own directory: absolute,
				   colons between */
	char parents[1024]; /* which images may be parents, as td_reach_parents_valid() knows it;
			       "": as is the default */
	int parent_disk;    /* a disk of this host, by its minor number plus 1, that the leaf stands
			       on in the place of its parents, by NBD; 0: none */
	bool leaf_cache;    /* what is read from beneath is kept in the leaf
			       (tapdisk/leaf-cache.h) */
	char data_file[1024]; /* of a qcow2 image that has one; "": none is named */
	char changed[1024];   /* the log of changed blocks (tapdisk/changed.h); "": none */
	char mirror[1024];    /* type:path of the mirror (tapdisk/mirror/mirror.h); "": none */
	bool mirror_said;     /* a word has been said of it, be it that there is none */
	bool standby;         /* it takes what the leaf has no space for, and nothing before */
	int mirror_timeout;   /* s without an answer after which it has failed; 0:
				 MIRROR_TIMEOUT, -1: never */
	struct td_key key;    /* of an encrypted image */
	struct limit_rates limit;
};

static inline unsigned options_sector(const struct vbd_options *o)
{
	return o->sector_size ? o->sector_size : 512;
}

/* s; 0: never */
static inline int options_patience(const struct vbd_options *o)
{
	return o->mirror_timeout > 0 ? o->mirror_timeout : o->mirror_timeout ? 0 : MIRROR_TIMEOUT;
}

/* The host's defaults: tapdisk.conf over what is built in. */
int options_default(struct vbd_options *o, struct td_err *err);

/* One word "key=value".  EINVAL for an unknown one, with the list of the known. */
int options_add(struct vbd_options *o, const char *word, struct td_err *err);

/* Apart from limits, which may change at any time. */
bool options_equal(const struct vbd_options *a, const struct vbd_options *b);

/* Is the mirror's copy a part of the disk (MI9 of tapdisk/mirror/mirror.h)? */
bool options_is_joined(const struct vbd_options *o);

/* Do they go together, for a disk of this type?  Nothing is made weaker in silence: what does not
 * work is refused. */
int options_check(const struct vbd_options *o, const char *type, struct td_err *err);

#endif
