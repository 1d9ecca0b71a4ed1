/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A queue: a thread, its event loop and its I/O engines.  Queue 0 is the main thread's, the home of
 * every disk; the others serve the further rings of devices that have several
 * (tapdisk/cache/lane.h), and each starts with the first ring that wants it.  A queue has two
 * engines, each started when the first disk asks for it: kernel AIO for O_DIRECT, and threads for
 * buffered files, unless the host's configuration says io_uring for both.
 *
 * Queues talk by messages: queue_post() from any thread; what one thread posts to a queue arrives
 * there in order.
 */
#ifndef TAPDISK_QUEUE_H
#define TAPDISK_QUEUE_H

#include <pthread.h>

#include "td/io.h"

#define QUEUE_MAX 4 /* threads of a tapdisk that serve rings, the main thread among them */

/* Embedded by the caller; owned by the queue from queue_post() until fn runs, which may post it
 * again. */
struct queue_msg {
	struct queue_msg *next;
	void (*fn)(struct queue_msg *m); /* in the queue's thread, from its loop */
};

struct queue {
	struct ev_loop *loop;
	struct td_io *direct, *buffered;
	const char *choice;      /* of the engine, by who asked for the first; NULL: what suits */
	struct queue_msg *inbox; /* the latest first; any thread adds, the queue's own takes all */
	ev_async mail;
	bool open;                           /* it takes messages */
	pthread_t thread;                    /* not of queue 0 */
	unsigned char ring;                  /* its thread's number */
	struct queue *others[QUEUE_MAX - 1]; /* of queue 0: those that have been started */
};

/*
 * The engine for files opened with or without O_DIRECT: $TAPDISK_IO, or else what the first call
 * has chosen (NULL: what suits).  0 or -errno. In the queue's thread.
 */
int queue_engine(struct queue *q, const char *choice, bool direct, struct td_io **io,
		 struct td_err *err);

/* How many threads serve rings: as many as the process may use processors, at most QUEUE_MAX;
 * $TAPDISK_THREADS says another number of them. */
unsigned queue_threads(void);

/* The queue that serves a device's ring of that number: home itself for 0, and where there is no
 * other, of queue_threads() in all.  In the home thread. */
struct queue *queue_for_ring(struct queue *home, unsigned ring);

void queue_post(struct queue *q, struct queue_msg *m);

/* Runs fn in q's thread, after what has been posted there, and waits for its end; all that q had
 * posted home by then is done here before.  On a fiber of home. */
void queue_call(struct queue *home, struct queue *q, void (*fn)(void *arg), void *arg);

/* home: joins the others; nothing in flight, and no message under way */
void queue_fini(struct queue *q);

#endif
