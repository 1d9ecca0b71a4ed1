/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tapback, whose guest writes anything into its frontend's directory at any time, and whose
 * toolstack and tapdisk do whatever they do: on a xenstore in memory (xs-mem.h), with tapdisk-call,
 * revive and ring-page of our own.  Checked:
 *
 * - it reads of guests no more than the disk's own frontend directory, and `target' and `vm'
 * - it writes into the disk's own directory, and its error node, alone; a state is one of the
 *   protocol's, and Connected follows on an answer of the tapdisk's alone
 * - what it asks of the tapdisk is bounded: numbers of pages and rings, references and ports once
 * - a guest's write costs a bounded number of calls
 */
#include <ctype.h>
#include <errno.h>
#include <ev.h>

#include "control/tapback/device.h"
#include "control/tapback/ring-page.h"
#include "td/ctl.h"
#include "tests/fuzz/dir.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/xs-mem.h"

const char fuzz_name[] = "xenstore", fuzz_unit[] = "questions to a tapdisk";
const char *const fuzz_words[] = {"ring-ref",
				  "ring-ref0",
				  "event-channel",
				  "ring-page-order",
				  "multi-queue-num-queues",
				  "queue-0/ring-ref",
				  "queue-1/event-channel",
				  "x86_64-abi",
				  "x86_32-abi",
				  "feature-persistent",
				  "4294967295",
				  "18446744073709551616",
				  "../",
				  NULL};

#define DOMID            7
#define BACK             "/local/domain/0/backend/vbd3/7/51712"
#define BACK2            "/local/domain/0/backend/vbd3/7/51728"
#define FRONT            "/local/domain/7/device/vbd/51712"
#define FRONT_OF_ANOTHER "/local/domain/70/device/vbd/51712"
#define FRONT2           "/local/domain/7/device/vbd/51728"
#define CALLS            8
#define COST_MAX         4000 /* calls of xenstore for one step */

enum step {
	STEP_GUEST, /* more often than others: up to STEP_LIKELY */
	STEP_LIKELY = 4,
	STEP_GUEST_RAW,
	STEP_REFS,
	STEP_STATE,
	STEP_TOOLSTACK,
	STEP_REMOVE,
	STEP_ANSWER,
	STEP_ANSWER_TOO,
	STEP_EVENT,
	STEP_TIMERS,
	STEP_BUSY,
	STEP_GOOD,
	STEPS
};

struct tapdisk_call {
	bool out;
	json_t *req; /* NULL: a watch */
	tapdisk_answer *answer;
	tapdisk_event *event;
	void *arg;
	int minor;
};

struct revive {
	revive_done *fn;
	void *arg;
	bool out;
};

static struct ev_loop *loop;
static struct devices m;
static struct tapdisk_call calls[CALLS];
static struct revive revives[2];
static bool connected[2]; /* by the tapdisk: 51712, 51728 */
static struct fuzz_in *input;

/* --- what it reads and writes --- */

static bool begins(const char *path, const char *with)
{
	size_t n = strlen(with);

	return !strncmp(path, with, n) && (!path[n] || path[n] == '/');
}

static void on_read(const char *path)
{
	if (begins(path, BACK) || begins(path, BACK2) || begins(path, "/local/domain/0/error") ||
	    !strcmp(path, "/local/domain/0/backend/vbd3") ||
	    !strcmp(path, "/local/domain/0/backend/vbd3/7"))
		return;
	FUZZ_ASSERT(!strstr(path, "/.") && !strstr(path, "//"));
	if (!strncmp(path, "/local/domain/7/", 16))
		return;
	/* same-machine.h: of the domains that share the disk */
	FUZZ_ASSERT(!strncmp(path, "/local/domain/", 14));
	path += 14 + strspn(path + 14, "0123456789");
	FUZZ_ASSERT(!strcmp(path, "/target") || !strcmp(path, "/vm"));
}

static void on_write(const char *path, const char *value)
{
	bool second = begins(path, BACK2);
	const char *key = path + strlen(BACK);

	if (begins(path, "/local/domain/0/error/backend/vbd3/7"))
		return;
	FUZZ_ASSERT(second || begins(path, BACK));
	if (!value)
		return;
	if (strcmp(key, "/state"))
		return;
	FUZZ_ASSERT(strlen(value) == 1 && strchr("12456", *value));
	FUZZ_ASSERT(*value != '4' || connected[second]);
}

/* --- the tapdisk --- */

static void check_connect(const json_t *req)
{
	json_t *queues = json_object_get(req, "queues"), *queue, *ref;
	uint32_t refs[128];
	json_int_t ports[8];
	size_t q, i, n = 0, np = 0,
		     pages = json_array_size(json_object_get(json_array_get(queues, 0), "refs"));

	FUZZ_ASSERT(json_integer_value(json_object_get(req, "domid")) == DOMID);
	FUZZ_ASSERT(json_array_size(queues) >= 1 && json_array_size(queues) <= m.opt.max_queues);
	FUZZ_ASSERT(pages && pages <= 16 && !(pages & (pages - 1)));
	json_array_foreach (queues, q, queue) {
		ports[np] = json_integer_value(json_object_get(queue, "port"));
		FUZZ_ASSERT(ports[np] >= 1 && ports[np] <= 1 << 17);
		for (i = 0; i < np; i++)
			FUZZ_ASSERT(ports[i] != ports[np]);
		np++;
		FUZZ_ASSERT(json_array_size(json_object_get(queue, "refs")) == pages);
		json_array_foreach (json_object_get(queue, "refs"), i, ref) {
			FUZZ_ASSERT(json_integer_value(ref) >= 1 &&
				    json_integer_value(ref) <= UINT32_MAX);
			refs[n] = (uint32_t)json_integer_value(ref);
			for (size_t k = 0; k < n; k++)
				FUZZ_ASSERT(refs[k] != refs[n]);
			n++;
		}
	}
}

static struct tapdisk_call *new_call(void)
{
	struct tapdisk_call *c = calls;

	while (c < calls + CALLS && c->out)
		c++;
	FUZZ_ASSERT(c < calls + CALLS); /* one question, one watch and one ping a disk */
	*c = (struct tapdisk_call){.out = true};
	fuzz_count++;
	return c;
}

struct tapdisk_call *tapdisk_ask(struct ev_loop *l, pid_t pid, json_t *req, double timeout_s,
				 tapdisk_answer *fn, void *arg)
{
	struct tapdisk_call *c = new_call();

	c->req = req;
	c->answer = fn;
	c->arg = arg;
	FUZZ_ASSERT(pid > 0);
	if (!strcmp(json_string_value(json_object_get(req, "op")), "connect"))
		check_connect(req);
	return c;
}

struct tapdisk_call *tapdisk_watch(struct ev_loop *l, pid_t pid, int minor, double timeout_s,
				   tapdisk_event *fn, void *arg)
{
	struct tapdisk_call *c = new_call();

	c->event = fn;
	c->arg = arg;
	c->minor = minor;
	return c;
}

void tapdisk_call_drop(struct tapdisk_call *c)
{
	if (!c)
		return;
	FUZZ_ASSERT(c->out);
	c->out = false;
	json_decref(c->req);
}

struct revive *revive_start(struct ev_loop *l, int minor, revive_done *fn, void *arg)
{
	for (struct revive *r = revives; r < revives + 2; r++)
		if (!r->out) {
			*r = (struct revive){fn, arg, true};
			return r;
		}
	abort();
}

void revive_drop(struct revive *r)
{
	if (r)
		r->out = false;
}

bool ring_page_look(unsigned domid, uint32_t ref, uint32_t *req_prod, uint32_t *rsp_prod)
{
	uint8_t b = fuzz_u8(input);

	FUZZ_ASSERT(domid == DOMID);
	*req_prod = b & 2 ? fuzz_u32(input) : 5;
	*rsp_prod = b & 4 ? fuzz_u32(input) : 4;
	return b & 1;
}

/* What a tapdisk says of a disk; b and more of the input decide. */
static json_t *state_of(uint8_t b, long long devid)
{
	json_t *o = json_pack("{s:i,s:i,s:I,s:s,s:s,s:b,s:b,s:b,s:i}", "minor", 3, "state",
			      b & 1 ? fuzz_u8(input) : 0, "sectors",
			      (json_int_t)(b & 2 ? fuzz_u64(input) >> 1 : 2048), "args",
			      "aio:/disk", "mode", "none", "flush", 1, "barrier", 1, "read_only",
			      b & 4, "answered", b & 8 ? fuzz_u8(input) : 0);
	json_t *rings = json_array();

	if (b & 16)
		json_array_append_new(rings, json_pack("{s:i,s:I,s:s}", "domid", DOMID, "devid",
						       (json_int_t)devid, "state",
						       b & 32 ? "broken" : "connected"));
	if (b & 64)
		json_array_append_new(rings, json_pack("{s:i,s:i,s:s}", "domid", fuzz_u8(input),
						       "devid", 51712, "state", "connected"));
	json_object_set_new(o, "rings", rings);
	if (b & 128)
		json_object_set_new(o, "reason", json_string("it waits\n\x01"));
	return o;
}

static void answer(struct fuzz_in *in)
{
	static const int errors[] = {
		0,       0,         0,     0,      ENODEV,    ENOENT, ECONNREFUSED,
		ENODATA, ETIMEDOUT, EBUSY, EINVAL, ECONNRESET};
	uint8_t which = fuzz_u8(in), b = fuzz_u8(in);
	struct tapdisk_call *c = &calls[which % CALLS];
	int err = errors[(which / CALLS) % (sizeof errors / sizeof *errors)];
	json_t *req = c->req, *reply;
	const char *op;

	for (int i = 0; i < CALLS && (!c->out || !c->req); i++)
		c = &calls[(which + i) % CALLS];
	req = c->req;
	if (!c->out || !req)
		return;
	op = json_string_value(json_object_get(req, "op"));
	/* an info does not tell of a ring before one was connected; a disk is found by its number
	 */
	reply = state_of(b, json_integer_value(json_object_get(req, "devid")) ?: 51712);
	if (!strcmp(op, "info") && !err && b & 16 && !(b & 32))
		connected[0] = connected[1] = true; /* a daemon before this one may have done it */
	if (!strcmp(op, "connect") && !err)
		connected[json_integer_value(json_object_get(req, "devid")) != 51712] = true;
	c->out = false;
	c->answer(c->arg, -err, err ? NULL : reply, err ? "it says no" : NULL);
	json_decref(reply);
	json_decref(req);
}

static void event(struct fuzz_in *in)
{
	uint8_t which = fuzz_u8(in), b = fuzz_u8(in);
	struct tapdisk_call *c = &calls[which % CALLS];
	struct revive *r = &revives[which % 2];
	json_t *e;

	if (which & 64 && r->out) {
		r->out = false;
		r->fn(r->arg, b & 1 ? -ENOENT : 100 + b, b & 1 ? "there is none" : "");
		return;
	}
	for (int i = 0; i < CALLS && (!c->out || c->req); i++)
		c = &calls[(which + i) % CALLS];
	if (!c->out || c->req)
		return;
	if (which & 128) {
		c->out = false;
		c->event(c->arg, NULL, "it is gone");
		return;
	}
	e = state_of(b, 51712);
	json_object_set_new(e, "minor", json_integer(c->minor));
	c->event(c->arg, e, NULL);
	json_decref(e);
}

/* --- steps --- */

static const char *const guest_keys[] = {"ring-ref",
					 "ring-ref0",
					 "ring-ref1",
					 "ring-ref2",
					 "ring-ref3",
					 "event-channel",
					 "ring-page-order",
					 "multi-queue-num-queues",
					 "protocol",
					 "feature-persistent",
					 "state",
					 "queue-0/ring-ref",
					 "queue-1/ring-ref",
					 "queue-0/event-channel",
					 "queue-1/event-channel"};
static const char *const back_keys[] = {"online",
					"shutdown-request",
					"state",
					"frontend",
					"frontend-id",
					"hotplug-status",
					"mode",
					"device-type",
					"physical-device-path",
					"pid",
					"minor",
					"removable",
					"discard-enable",
					"direct-io-safe",
					"polling-duration",
					"shutdown-done"};

static size_t value(struct fuzz_in *in, char *out, size_t room)
{
	static const char *const words[] = {"0",   "1",     "4",     "connected", "x86_64-abi",
					    "",    "force", "cdrom", "-1",        "999999999999",
					    FRONT, "r",     "01",    "+3",        FRONT_OF_ANOTHER};
	uint8_t how = fuzz_u8(in);
	size_t n;

	if (how < 128)
		return (size_t)snprintf(out, room, "%u", how < 64 ? how : fuzz_u32(in));
	if (how < 200)
		return (size_t)snprintf(out, room, "%s", words[how % 15]);
	n = how < 250 ? fuzz_u8(in) : fuzz_u16(in) % room;
	return fuzz_take(in, out, n < room ? n : room);
}

static void put(struct fuzz_in *in, const char *dir, const char *key)
{
	static char text[4096];
	char path[XS_MEM_PATH];

	snprintf(path, sizeof path, "%.100s/%.100s", dir, key);
	xs_mem_put(path, text, value(in, text, sizeof text));
}

static void guest_raw(struct fuzz_in *in)
{
	char key[64] = {0};

	fuzz_take(in, key, fuzz_u8(in) % (sizeof key - 1));
	for (char *p = key; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-/@_", *p))
			*p = 'x'; /* xenstored takes no others */
	if (key[0] && key[0] != '/' && !strstr(key, "//") && key[strlen(key) - 1] != '/')
		put(in, FRONT, key);
}

static void put_text(const char *dir, const char *key, const char *text)
{
	char path[XS_MEM_PATH];

	snprintf(path, sizeof path, "%.100s/%.100s", dir, key);
	xs_mem_put(path, text, strlen(text));
}

/* A ring of 1 to 256 pages, or 1 to 16 rings of one. */
static void refs(uint8_t b)
{
	unsigned n = b & 128 ? 1u + b % 16 : 1u << b % 9;
	char key[64], value[16];

	snprintf(value, sizeof value, "%u", b & 128 ? n : b % 9);
	put_text(FRONT, b & 128 ? "multi-queue-num-queues" : "ring-page-order", value);
	for (unsigned i = 0; i < n; i++) {
		snprintf(key, sizeof key, b & 128 ? "queue-%u/ring-ref" : "ring-ref%u", i);
		snprintf(value, sizeof value, "%u", 100 + i);
		put_text(FRONT, key, value);
		snprintf(key, sizeof key, "queue-%u/event-channel", i);
		if (b & 128)
			put_text(FRONT, key, value);
	}
}

/* A disk and a frontend that are as they should be. */
static void good(const char *back, const char *front)
{
	put_text(front, "state", "1");
	put_text(back, "frontend", front);
	put_text(back, "frontend-id", "7");
	put_text(back, "online", "1");
	put_text(back, "physical-device-path", "/run/blktap-control/nbd100.3");
	put_text(back, "hotplug-status", "connected");
	put_text(back, "state", "1");
	put_text(front, "ring-ref", "8");
	put_text(front, "event-channel", "3");
	put_text(front, "protocol", "x86_64-abi");
	put_text(front, "state", "3");
}

static void timers(uint8_t which)
{
	if (which & 1)
		ev_feed_event(loop, &m.watchdog, EV_TIMER);
	td_list_each (l, &m.devices) {
		struct device *d = td_entry(l, struct device, link);

		if (which & 2) {
			ev_timer_stop(loop, &d->retry);
			ev_feed_event(loop, &d->retry, EV_TIMER);
		}
		if (which & 4) {
			ev_timer_stop(loop, &d->pace);
			ev_feed_event(loop, &d->pace, EV_TIMER);
		}
	}
}

static void state(uint8_t b)
{
	put_text(b & 128  ? b & 64 ? BACK2 : BACK
		 : b & 64 ? FRONT2
			  : FRONT,
		 "state", (const char[]){(char)('0' + b % 9), 0});
}

static void step(struct fuzz_in *in)
{
	unsigned what = fuzz_u8(in) % STEPS;
	uint8_t b;

	switch (what) {
	case STEP_GUEST_RAW:
		guest_raw(in);
		break;
	case STEP_REFS:
		refs(fuzz_u8(in));
		break;
	case STEP_STATE:
		state(fuzz_u8(in));
		break;
	case STEP_TOOLSTACK:
		b = fuzz_u8(in);
		put(in, b & 128 ? BACK2 : BACK, back_keys[b % 16]);
		break;
	case STEP_REMOVE:
		b = fuzz_u8(in);
		xs_mem_remove(b & 4   ? "/local/domain/7/device"
			      : b & 2 ? b & 1 ? BACK2 : BACK
			      : b & 1 ? FRONT "/state"
				      : FRONT);
		break;
	case STEP_ANSWER:
	case STEP_ANSWER_TOO:
		answer(in);
		break;
	case STEP_EVENT:
		event(in);
		break;
	case STEP_TIMERS:
		timers(fuzz_u8(in));
		break;
	case STEP_BUSY:
		xs_mem_busy = fuzz_u8(in) % 4;
		break;
	case STEP_GOOD:
		if (fuzz_u8(in) & 1)
			good(BACK2, FRONT2);
		else
			good(BACK, FRONT);
		break;
	default:
		b = fuzz_u8(in);
		put(in, b & 128 ? FRONT2 : FRONT, guest_keys[b % 15]);
	}
	xs_mem_calls = 0;
	for (int i = 0; i < 3; i++)
		ev_run(loop, EVRUN_NOWAIT);
	FUZZ_ASSERT(xs_mem_calls < COST_MAX);
}

/* --- the whole --- */

size_t fuzz_seed(unsigned n, uint8_t *p)
{
	const uint8_t *start = p;

	if (n >= 10)
		return 0;
	*p++ = (uint8_t)n;
	if (n >= 8)
		p = fuzz_put(p, (const uint8_t[]){STEP_REFS, n == 8 ? 128 + 3 : 4}, 2);
	p = fuzz_put(p, (const uint8_t[]){STEP_GOOD, (uint8_t)(n == 5)}, 2);
	if (n & 2)
		p = fuzz_put(p,
			     (const uint8_t[]){STEP_GUEST, 6, 1, STEP_GUEST, 1, 9, STEP_GUEST, 2,
					       10, STEP_STATE, 4},
			     11);
	for (uint8_t i = 0; i < 6; i++) {
		const uint8_t more[] = {STEP_ANSWER,
					(uint8_t)(n == 7 ? i * 8 : 0),
					0,
					STEP_EVENT,
					(uint8_t)(i << 5),
					(uint8_t)(16 + n),
					STEP_TIMERS,
					7,
					STEP_ANSWER,
					0,
					(uint8_t)(i & 1 ? 16 : 0)};

		p = fuzz_put(p, more, sizeof more);
		if (i == 2)
			p = fuzz_put(p, (const uint8_t[]){STEP_STATE, 4}, 2);
		if (i == 4)
			p = fuzz_put(
				p,
				(const uint8_t[]){STEP_STATE, 5, STEP_ANSWER, 0, 0, STEP_STATE, 6},
				7);
	}
	return (size_t)(p - start);
}

void fuzz_start(void)
{
	fuzz_dir();
	loop = ev_default_loop(0);
	xs_mem_reads = on_read;
	xs_mem_writes = on_write;
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t how = fuzz_u8(&in);
	struct devices_options o = {.name = "vbd3",
				    .only_domid = -1,
				    .no_barrier = how & 1,
				    .max_queues = how & 2 ? 4 : 1,
				    .hold_s = how & 4 ? 60 : 0,
				    .no_revive = how & 8,
				    .order = how & 16 ? ORDER_LIBXL : ORDER_AUTO,
				    .timeout_s = 10};
	struct td_err err = {0};

	input = &in;
	connected[0] = connected[1] = false;
	memset(calls, 0, sizeof calls);
	memset(revives, 0, sizeof revives);
	xs_mem_clear();
	FUZZ_ASSERT(!devices_open(&m, loop, &o, &err));
	for (int i = 0; i < 64 && in.left; i++)
		step(&in);
	devices_close(&m);
	for (int i = 0; i < CALLS; i++)
		FUZZ_ASSERT(!calls[i].out);
	xs_mem_clear();
	return 0;
}
