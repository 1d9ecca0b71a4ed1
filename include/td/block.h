/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests, drivers and images: what flows between the layers of a tapdisk.
 *
 * A request goes down once (ring or NBD > cache mode > image) and comes back up once, through
 * done().  The layer that holds it has it on exactly one list; it is completed exactly once; a
 * layer that needs state of its own makes a child request.
 */
#ifndef TD_BLOCK_H
#define TD_BLOCK_H

#include "td/io.h"

enum td_op { TD_READ, TD_WRITE, TD_FLUSH, TD_DISCARD, TD_WRITE_ZEROES };

enum {
	TD_FUA = 1u << 0, /* durable before done(); a driver sees it on a WRITE only */
	/* the flags below are known above the cache-mode layer only; no driver sees them */
	TD_PREFLUSH = 1u << 1, /* flush, write, flush (a blkif FLUSH that carries data) */
	TD_BARRIER = 1u << 2,  /* as PREFLUSH, and nothing passes it in either direction */
	/* for drivers again */
	TD_UNMAP = 1u << 3, /* on WRITE_ZEROES: the range need not keep its space */
};

/*
 * DISCARD is a hint: it returns 0 also where no space is given back; what the range reads as
 * afterwards is undefined.  WRITE_ZEROES: the range reads as zeroes afterwards.  Without TD_UNMAP
 * it keeps or gets its space, so that a later write finds some.  It fails with -EOPNOTSUPP, with
 * nothing changed, where a driver could do it no faster than by writing zeroes: the caller then
 * writes them.
 */

struct td_image;

struct td_req {
	enum td_op op;
	unsigned flags;
	uint64_t off, len; /* bytes, multiples of 512; FLUSH: both 0 */
	struct iovec *iov; /* READ and WRITE only; sums up to len; iov is the owner's and comes back
			      as it was */
	int iovcnt;
	/* 0 or -errno; may run inside the submit; req is the owner's again */
	void (*done)(struct td_req *req, int err);
	struct td_io *io; /* the engine of the queue that the request runs on; set by the owner */

	/* the holder's: whoever has been given the request and has not completed it */
	struct td_image *image;
	struct td_list link;
	struct td_iop iop; /* for a driver that needs one operation for one request */
	struct iovec one;  /* room for a one-element iov */
	void *holder;
	uint64_t state[2];

	/* splitting, see td_req_split below */
	struct td_req *parent;
	unsigned pending;
	int err;
};

/* What an image can do and how large it is; fixed while it is open, except size, which may grow. */
struct td_image_info {
	uint64_t size;     /* bytes */
	uint32_t physical; /* bytes: best unit of a write */
	uint32_t block; /* bytes: a write of less is a read-modify-write of ours; 0: that does not
			   matter */
	bool discard;   /* TD_DISCARD gives space back */
	uint32_t discard_gran; /* bytes */
	bool decrypts; /* reads pass through their memory encrypted: it must be memory that no guest
			  sees */
};

/* A range of an image whose data are together in a file. */
struct td_map {
	uint64_t off, len;    /* bytes of the image */
	struct td_file *file; /* NULL: nothing is kept, and all reads as zeroes */
	uint64_t at;          /* bytes of the file, where off is */
	unsigned flags[2];    /* TD_IO_* of a read there, and of a write */
	bool whole; /* all of the image, for good: of one that may grow, what comes behind too */
};

/* What an error says then. */
#define TD_RELINK_DOUBT                                                                            \
	"it may name the old one or the new one from now on: keep both, close the disk, and "      \
	"check "                                                                                   \
	"which"

/* Another parent for an image that stays open. */
struct td_relink {
	/* its path from the image's directory, "./" in front; NULL: it follows from path */
	const char *relative;
	const char *name;   /* its last component */
	const char *path;   /* absolute, as it was opened; NULL: not known */
	const char *type;   /* its driver's name; NULL: the image's own, or raw */
	uint8_t uuid[16];   /* all zero: a raw one */
	uint32_t timestamp; /* as the format has it */
	bool raw;
	bool trial; /* nothing is written: would it do well? */
	/* optional; set where it failed, and the image may name the new one nevertheless, now or
	 * after a power cut */
	bool *doubt;
};

struct td_driver {
	const char *name;  /* the type in type:path */
	const char *alias; /* another name for it, or NULL */
	int type;          /* the number that `tap-ctl stats' shows */
	size_t priv_size;  /* bytes of zeroed image->priv */
	bool redo; /* it keeps metadata in memory that a death must not take along: image->redo is
		      its log */

	bool remote; /* it talks to other hosts: tapdisk/sandbox/sandbox.h, B5 */

	/* On a fiber: may wait (lib/fiber/fiber.h), never blocks the loop.  Fills image->info.  On
	 * error nothing is left open. */
	int (*open)(struct td_image *image, struct td_err *err);
	/* With redo; on a fiber: does of open only what a dead process's log of the image asks for;
	 * nothing stays open, and no key is needed. */
	int (*settle)(struct td_image *image, struct td_err *err);
	/* Nothing is in flight; cannot fail; on a fiber. */
	void (*close)(struct td_image *image);
	/* Never blocks, never fails: errors come through td_req_done().  Called by lib/io/request.c
	 * alone. */
	void (*submit)(struct td_image *image, struct td_req *req);
	/* Optional; on a fiber: looks at the size again; 0, 1 if info changed, or -errno. */
	int (*resize)(struct td_image *image, struct td_err *err);
	/* Optional: the next image down the chain, as type:path into spec (TD_SPEC_MAX bytes); 0
	 * none, 1 yes, -errno. */
	int (*backing)(struct td_image *image, char *spec, struct td_err *err);
	/*
	 * Optional; on a fiber, while requests go on: names another parent in the image's file, by
	 * an order of writes after each of which the image opens.  The chain stays open as it is.
	 */
	int (*relink)(struct td_image *image, const struct td_relink *to, struct td_err *err);
	/* Optional: what a child remembers of this image, into uuid and timestamp. */
	void (*identify)(struct td_image *image, struct td_relink *to);
	/* Optional; on a fiber, of an image that was just opened for writing: makes the disk `size'
	 * bytes large, and what is new reads as zeroes. */
	int (*grow)(struct td_image *image, uint64_t size, struct td_err *err);
	/* Optional; blocks: does another image, of those in the directories of both, stand on
	 * `parent' as `child' does?  0: no; -EBUSY with text. */
	int (*beneath)(const char *child, const char *parent, struct td_err *err);
	/*
	 * Optional; on a fiber, while requests go on: what this image alone holds in [off, off +
	 * len), a range within its size. Fills at most max extents (max >= 1) in order from off,
	 * without gaps or overlap, none beyond off + len, all of len > 0; they may end early. Their
	 * number (at least 1), or -errno.  Without it all is data.  When in doubt: data, which is
	 * never wrong.
	 */
	int (*extents)(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
		       int max);
	/*
	 * Optional; never waits: where the data of [off, off + len) are, so that another thread can
	 * read and write them there while requests go on.  False where they are not plain data
	 * of this image in one piece, or where a write to them needs more than the write.  What it
	 * tells is true until a DISCARD or WRITE_ZEROES is submitted, a fault is found, or the
	 * image is closed; a FLUSH that comes after such a write makes that durable too.
	 */
	bool (*map)(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out);
	/* Optional; never waits: the image is given up.  What is under way ends within this call,
	 * and all that comes fails; then it is closed.  Without it, what is under way ends when it
	 * does. */
	void (*abandon)(struct td_image *image, const char *why);
};

#define TD_SPEC_MAX 4160 /* bytes of "type:path" with a path of 4,095 */

#define TD_IMAGE_MAGIC 0x7464696du

#define TD_KEY_MAX 512 /* bytes */

/* The key of an encrypted image, or what it is made from: what it may be, its driver says. */
struct td_key {
	uint8_t bytes[TD_KEY_MAX];
	unsigned len; /* 0: none */
};

/* Which process an image's server is; its driver alone looks inside.  All zeroes: not known. */
struct td_server {
	uint64_t of[2];
};

/* How an image is opened. */
struct td_how {
	unsigned flags;               /* TD_FILE_*: how to open its file */
	const struct td_key *key;     /* or NULL */
	const struct td_reach *reach; /* how far the image's word goes (lib/io/reach.h); NULL:
					 anywhere.  chain_open() makes it of: */
	bool trusted;                 /* or, for who vouches for the images, leaves it at NULL */
	const char *dirs;    /* directories, colons between, beside the leaf's own; or NULL */
	const char *parents; /* which images may be parents; NULL: as is the default */
	const char *data;    /* the data file that the host names for this disk; or NULL */
	bool alone; /* of chain_open(): without the leaf's parents; its caller puts another image
		       beneath it */
	struct td_io *cached; /* of chain_open(): what is only read, and is a regular file, is read
				 through the page cache, by this engine; NULL: as flags say */
	struct td_redo *redo; /* of the leaf: where a driver notes metadata that waits for a commit
				 (lib/redo.h); NULL: nowhere */
	bool settle; /* read-only, but beneath what is written: what its files hold is made durable
			(lib/settle.h) */
	const char *left; /* of the leaf: a file for what a driver leaves to the next open
			     (drivers/nbd/nbd-left.c); NULL: none */
	bool died; /* the last to have it open was another process, so that the file must be there
		    */
	/* s that the leaf may be without its server (drivers/nbd/nbd-again.c), while its requests
	 * wait; 0: none; -1: without end */
	int reconnect;
	unsigned connections; /* to the server; 0: nobody has said how many */
	/* Of a server's image: who it is comes here; or NULL.  same_server: it must be who is
	 * there, if it cannot flush: what another has not got is lost */
	struct td_server *server;
	bool same_server;
	int *lost; /* NULL: the open fails where that fails; else -errno comes here, and it goes on;
		      one may be there already */
	/* of the disk, which outlives its images (td/io.h); NULL: none */
	struct td_sync_mark *mark;
};

/* May hold back changes of an image before its driver gets them. */
struct td_gate {
	/* Of a change that td_submit() brings: true: it is kept here, and goes on by td_pass(), or
	 * fails by td_req_done(). */
	bool (*holds)(struct td_gate *g, struct td_req *req);
	/* Any thread, never waits: would a change of [off, off + len) pass at once?  What is true
	 * stays so. */
	bool (*lets)(const struct td_gate *g, uint64_t off, uint64_t len);
	/* Optional: a change that holds() has seen is done, whatever came of it; req is as it was
	 * submitted. */
	void (*passed)(struct td_gate *g, const struct td_req *req);
};

/* Hears of changes of an image. */
struct td_watch {
	/* One is over, well or not; in the image's home thread, before done(). */
	void (*changed)(struct td_watch *w, uint64_t off, uint64_t len);
};

struct td_image {
	unsigned magic;
	const struct td_driver *driver;
	char *path;
	unsigned file_flags;          /* TD_FILE_*: how to open its file */
	struct td_io *io;             /* the home queue's engine, for open and close; of a parent,
					 for its requests too */
	const struct td_key *key;     /* of td_how, as long as open runs */
	const struct td_reach *reach; /* of td_how, as long as open and backing run */
	struct td_io *cached;         /* the same */
	struct td_redo *redo;         /* of td_how */
	bool settle; /* lib/settle.h: before open ends, what its files hold is made durable */
	int *lost;   /* of td_how, as long as open runs; and so are: */
	const char *left;
	struct td_server *server;
	bool same_server, died;
	int reconnect;             /* of td_how */
	unsigned connections;      /* of td_how */
	struct td_sync_mark *mark; /* of td_how */
	struct td_image *backing;  /* next image down the chain, or NULL */
	struct td_gate *gate;      /* whoever opened it may set one; NULL: none */
	struct td_watch *watch;    /* likewise */
	struct td_image_info info;
	/* sectors read and written; failed requests of each */
	struct {
		uint64_t hits[2], fail[2];
	} n;
	unsigned inflight; /* requests submitted and not done, and those who look at its extents */
	char *fault; /* what its driver has found wrong with it while it is open; NULL: nothing */
	char *away;  /* what its server is being waited for; NULL: it is there */
	uint64_t reconnects;                     /* how often it has been waited for */
	void (*changed)(struct td_image *image); /* optional: `away' is another; owner is theirs */
	void (*failed)(struct td_image *image);  /* optional: whoever opened it hears of a fault;
						    owner is theirs */
	void (*resized)(struct td_image *image); /* optional: it may have another size, which
						    td_driver.resize tells; in its home thread */
	void *owner;
	void *priv; /* the driver's */
};

/* For drivers: the image's own file, which another image may have named. */
int td_image_file(struct td_image *image, unsigned flags, struct td_file **out, struct td_err *err);

/* Opens on a fiber; td_image_close takes NULL and half-open images. */
int td_image_open_how(const struct td_driver *driver, const char *path, const struct td_how *how,
		      struct td_io *io, struct td_image **out, struct td_err *err);
void td_image_close(struct td_image *image);
/* What a process that died had not written to the image yet (lib/redo.h) is put there; on a fiber.
 * 0 too when there is nothing of the kind. */
int td_image_settle(const struct td_driver *driver, const char *path, const struct td_how *how,
		    struct td_io *io, struct td_err *err);

/* A driver has found that its image is not to be trusted, and fails what it must from now on; in
 * the image's home thread.  The first counts. */
void td_image_fault(struct td_image *image, const char *why);

/* A driver waits for its server, or (NULL) no more; likewise in the home thread. */
void td_image_away(struct td_image *image, const char *why);

/* The only place that calls a driver's submit.  Asserts the contract: range, alignment, capability,
 * iov. */
void td_submit(struct td_image *image, struct td_req *req);
void td_pass(struct td_req *req); /* of one that a gate has kept */
/* By the driver that has it: another image completes it instead. */
void td_forward(struct td_req *req, struct td_image *to);
/* A driver has finished: exactly once a request. */
void td_req_done(struct td_req *req, int err);

/*
 * What a chain shows in [off, off + len), a range within leaf's size; on a fiber; the caller sees
 * to it that the images stay open meanwhile.  As td_driver.extents, for the whole chain: no
 * TD_EXTENT_PARENT, neighbours differ, and a driver's failure is data. Their number, at least 1;
 * they may end early.
 */
int td_extents(struct td_image *leaf, uint64_t off, uint64_t len, struct td_extent *out, int max);

/*
 * Splitting: td_req_split(req) opens it with one reference held by the splitter; each child made by
 * td_req_child() holds one more; td_req_put() drops one and, at the last, completes req with the
 * first error of all.
 */
void td_req_split(struct td_req *req);
/* child->done is set; the rest is the caller's to fill */
void td_req_child(struct td_req *req, struct td_req *child);
void td_req_put(struct td_req *req, int err);

#endif
