/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NBD server in a thread, whose disk has a volatile cache: when it goes down, what was neither
 * flushed nor written durably is lost.  The test says when it goes and comes, and what it is then.
 */
#ifndef TESTS_NBD_FLAKY_H
#define TESTS_NBD_FLAKY_H

#include <stdbool.h>
#include <stdint.h>

#define FLAKY_ALL 0x6d /* HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES */
#define FLAKY_LOG 32768

struct flaky_command {
	int conn; /* the first connection is 1 */
	uint16_t type, flags;
	uint64_t off;
	uint32_t len;
	uint8_t first; /* of a WRITE: its first byte */
	bool done;     /* carried out */
};

/* Set by the test at any time, before or while it is up. */
struct flaky {
	char path[100]; /* as an image has it */
	bool tcp;       /* it listens on 127.0.0.1, at one port */
	uint64_t size;
	unsigned flags;  /* of the export */
	uint32_t max;    /* bytes of a request; 0: it names none */
	bool mute;       /* commands are read, and neither carried out nor answered */
	bool mute_flush; /* flushes are */
	int fail;        /* errno of the protocol for changes; 0: none */
	int fail_flush, fail_read;
	int last;   /* so many commands of a connection are answered, then it is closed; 0: all */
	bool apart; /* a read shows what others than its connection have changed only when it
		       is flushed or FUA: as little as CAN_MULTI_CONN demands */
	unsigned most;    /* connections at once; 0: any number */
	uint64_t differs; /* bytes by which the export is larger for all but one at a time */
	int deaf_conn;    /* that connection is not read; 0: none */
	int mute_conn;    /* commands of that connection are read, and no more; 0: none's */
	bool lingers; /* a connection that goes is half closed, and carried on to the end later */
};

extern struct flaky flaky;

void flaky_start(const char *dir); /* it is up, with 64 MiB of zeroes */
void flaky_start_tcp(void);
void flaky_stop(void);
void flaky_down(void); /* closes all, and loses what is volatile */
void flaky_up(void);
void flaky_cut(int conn); /* closes that connection */
unsigned flaky_conns(void);
int flaky_last(void);            /* the connection that is there and was made last */
void flaky_let_linger_end(void); /* the old connections' commands are carried out, and they close */

/* The commands so far, in the order in which they came. */
unsigned flaky_count(void);
struct flaky_command flaky_command(unsigned i);
void flaky_forget(void);
uint8_t flaky_now(uint64_t off);  /* what a read would bring */
uint8_t flaky_safe(uint64_t off); /* what would survive */

#endif
