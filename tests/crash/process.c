/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/process.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SANITIZED 1
#define RAW       __attribute__((no_sanitize_address))
#else
#define SANITIZED 0
#define RAW
#endif

#define NOBODY (-1)

struct process {
	bool there;
	unsigned char *statics; /* its own, while another's are in place */
};

static LAB struct process procs[PROCESSES] = {{0}};
static LAB int current = NOBODY, loaded = NOBODY;
static LAB jmp_buf *out = NULL;
LAB void (*process_called)(const char *what) = NULL;
LAB int (*process_refuses)(const char *path) = NULL;

static void called(const char *what)
{
	if (current != NOBODY && process_called)
		process_called(what);
}

int process_current(void)
{
	return current;
}

int process_lab(void)
{
	int was = current;

	current = NOBODY;
	return was;
}

void process_back(int was)
{
	current = was;
}

static LAB void *stack_bottom = NULL; /* the lab's own */
static LAB size_t stack_bytes = 0;

/* --- static variables --- */

extern char __data_start[], _end[], __start_lab[], __stop_lab[];

struct range {
	char *from;
	size_t len;
};

static LAB struct range ranges[3] = {{0}};
static LAB unsigned char *pristine = NULL;
static LAB size_t statics_bytes = 0;

static int find_tls(struct dl_phdr_info *info, size_t size, void *arg)
{
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_tls_data)
			ranges[2] = (struct range){info->dlpi_tls_data, info->dlpi_phdr[i].p_memsz};
	return 1; /* the first is the program itself */
}

RAW static void move(char *to, const char *from, size_t n)
{
	size_t i = 0;

	if (!SANITIZED) {
		memcpy(to, from, n);
		return;
	}
	for (; i < n; i++)
		((volatile char *)to)[i] = from[i];
}

static void save(unsigned char *to)
{
	for (unsigned i = 0; i < 3; i++) {
		move((char *)to, ranges[i].from, ranges[i].len);
		to += ranges[i].len;
	}
}

static void restore(const unsigned char *from)
{
	for (unsigned i = 0; i < 3; i++) {
		move(ranges[i].from, (const char *)from, ranges[i].len);
		from += ranges[i].len;
	}
}

/* Puts a process's static variables in place. */
static void load(int i)
{
	if (loaded == i)
		return;
	if (loaded != NOBODY)
		save(procs[loaded].statics);
	restore(procs[i].statics);
	loaded = i;
}

/* --- memory --- */

#if !SANITIZED

#define HEAP_BYTES (UINT64_C(1) << 36) /* of addresses */
#define CLASSES    192

/* stands before what is given out */
struct block {
	uint32_t class, skipped;
	struct block *next;
};

struct heap {
	char *base, *at;
	struct block *free[CLASSES];
};

static LAB struct heap heaps[PROCESSES + 1] = {{0}}; /* the last is the lab's */

/* Four classes to each doubling. */
static unsigned class_of(size_t n, size_t *bytes)
{
	unsigned bit, step;

	if (n <= 64) {
		*bytes = (n + 15) / 16 * 16;
		return (unsigned)(*bytes / 16);
	}
	bit = 63 - (unsigned)__builtin_clzl(n - 1);
	step = (unsigned)((n - 1) >> (bit - 2)) & 3;
	*bytes = ((size_t)4 + step + 1) << (bit - 2);
	return 5 + (bit - 6) * 4 + step;
}

static struct heap *heap_now(void)
{
	struct heap *h = &heaps[current == NOBODY ? PROCESSES : current];

	if (!h->base) {
		h->base = h->at =
			(char *)syscall(SYS_mmap, NULL, HEAP_BYTES, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L);
		if (h->base == MAP_FAILED)
			abort();
	}
	return h;
}

static struct heap *heap_of(const void *p)
{
	for (unsigned i = 0; i <= PROCESSES; i++)
		if (heaps[i].base && (const char *)p >= heaps[i].base &&
		    (const char *)p < heaps[i].base + HEAP_BYTES)
			return &heaps[i];
	return NULL;
}

static void *get(size_t n)
{
	struct heap *h = heap_now();
	size_t bytes;
	unsigned class = class_of(n ? n : 1, &bytes);
	struct block *b = h->free[class];

	if (b) {
		h->free[class] = b->next;
	} else {
		b = (struct block *)(void *)h->at;
		h->at += sizeof *b + bytes;
		b->class = class;
	}
	b->skipped = 0;
	return b + 1;
}

static size_t room(const struct block *b)
{
	unsigned c = b->class, bit;

	if (c < 5)
		return (size_t)c * 16;
	bit = 6 + (c - 5) / 4;
	return ((size_t)4 + (c - 5) % 4 + 1) << (bit - 2);
}

void *malloc(size_t n)
{
	return get(n);
}

void free(void *p)
{
	struct block *b = (struct block *)p - 1;
	struct heap *h;

	if (!p)
		return;
	b = (struct block *)(void *)((char *)b - b->skipped);
	h = heap_of(b);
	if (!h)
		abort();
	b->next = h->free[b->class];
	h->free[b->class] = b;
}

void *calloc(size_t n, size_t size)
{
	size_t bytes;
	void *p;

	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	p = get(bytes);
	memset(p, 0, bytes);
	return p;
}

void *realloc(void *p, size_t n)
{
	struct block *b = (struct block *)p - 1;
	size_t old;
	void *q;

	if (!p)
		return get(n);
	old = room((struct block *)(void *)((char *)b - b->skipped)) - b->skipped;
	if (n <= old)
		return p;
	q = get(n);
	memcpy(q, p, old);
	free(p);
	return q;
}

void *memalign(size_t align, size_t n)
{
	char *p = get(n + align), *q = (char *)(((uintptr_t)p + align - 1) / align * align);

	if (q != p) {
		struct block *b = (struct block *)(void *)q - 1;

		b->class = 0;
		b->skipped = (uint32_t)(q - p);
	}
	return q;
}

void *aligned_alloc(size_t align, size_t n)
{
	return memalign(align, n);
}

int posix_memalign(void **out_p, size_t align, size_t n)
{
	*out_p = memalign(align, n);
	return 0;
}

static void heap_reset(unsigned i)
{
	struct heap *h = &heaps[i];

	h->at = h->base;
	memset(h->free, 0, sizeof h->free);
}

#else
static void heap_reset(unsigned i)
{
}
#endif

/* --- descriptors --- */

#define FDS 1024

struct bell {
	void (*rung)(void *arg);
	void *arg;
};

static LAB struct {
	bool open;
	int owner;
	struct bell bell;
} fds[FDS] = {{0}};

static int opened(int fd)
{
	if (fd >= FDS)
		abort();
	if (fd >= 0) {
		fds[fd].open = true;
		fds[fd].owner = current;
		fds[fd].bell = (struct bell){0};
	}
	return fd;
}

static int failed(long rc)
{
	return (int)rc;
}

void process_bell(int fd, void (*rung)(void *arg), void *arg)
{
	fds[fd].bell = (struct bell){rung, arg};
}

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
	int err;

	called("open");
	err = current != NOBODY && process_refuses && flags & O_CREAT ? process_refuses(path) : 0;
	if (err) {
		errno = err;
		return -1;
	}
	return opened((int)syscall(SYS_openat, dir, path, flags, mode));
}

#define WITH_MODE(flags) (((flags)&O_CREAT) || ((flags)&O_TMPFILE) == O_TMPFILE)

int open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	if (WITH_MODE(flags)) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	return open_at(AT_FDCWD, path, flags, mode);
}

int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags)
{
	return open_at(AT_FDCWD, path, flags, 0);
}

int openat(int dir, const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	if (WITH_MODE(flags)) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	return open_at(dir, path, flags, mode);
}

int close(int fd)
{
	if (fd >= 0 && fd < FDS)
		fds[fd].open = false;
	return failed(syscall(SYS_close, fd));
}

int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg, rc;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	rc = syscall(SYS_fcntl, fd, cmd, arg);
	if (rc >= 0 && (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)) {
		opened((int)rc);
		fds[rc].bell = fds[fd].bell;
	}
	return (int)rc;
}

ssize_t write(int fd, const void *buf, size_t n)
{
	if (fd >= 0 && fd < FDS && fds[fd].open && fds[fd].bell.rung) {
		fds[fd].bell.rung(fds[fd].bell.arg);
		return (ssize_t)n;
	}
	called("write");
	return syscall(SYS_write, fd, buf, n);
}

int unlink(const char *path)
{
	called("unlink");
	return failed(syscall(SYS_unlink, path));
}

int rename(const char *from, const char *to)
{
	called("rename");
	return failed(syscall(SYS_rename, from, to));
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	called("link");
	return failed(syscall(SYS_linkat, from_dir, from, to_dir, to, flags));
}

/* --- mappings --- */

#define MAPS   4096
#define STACKS 64

struct map {
	void *at;
	size_t len;
	int owner;
};

static LAB struct map maps[MAPS] = {{0}};
static LAB unsigned nmaps = 0;
/* Fibers' stacks are used again, with their guard page. */
static LAB struct stack {
	void *at;
	size_t len;
	int owner;
	bool used, guarded;
} stacks[STACKS] = {{0}};

static struct stack *stack_at(const void *at)
{
	for (unsigned i = 0; i < STACKS && stacks[i].at; i++)
		if (stacks[i].at == at)
			return &stacks[i];
	return NULL;
}

static void *raw_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
}

static void *stack_get(size_t len, int prot, int flags)
{
	for (unsigned i = 0; i < STACKS; i++) {
		struct stack *s = &stacks[i];

		if (s->at && (s->used || s->len != len))
			continue;
		if (!s->at) {
			s->at = raw_mmap(NULL, len, prot, flags, -1, 0);
			s->len = len;
		}
		s->used = true;
		s->owner = current;
		return s->at;
	}
	return MAP_FAILED;
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	void *p;

	if (current == NOBODY)
		return raw_mmap(addr, len, prot, flags, fd, off);
	if (flags & MAP_STACK)
		return stack_get(len, prot, flags);
	called("mmap");
	p = raw_mmap(addr, len, prot, flags, fd, off);
	if (p != MAP_FAILED && !(flags & MAP_FIXED)) {
		if (nmaps == MAPS)
			abort();
		maps[nmaps++] = (struct map){p, len, current};
	}
	return p;
}

int munmap(void *at, size_t len)
{
	struct stack *s = stack_at(at);

	if (s) {
		s->used = false;
		return 0;
	}
	for (unsigned i = 0; i < nmaps; i++)
		if (maps[i].at == at) {
			maps[i] = maps[--nmaps];
			break;
		}
	return failed(syscall(SYS_munmap, at, len));
}

int mprotect(void *at, size_t len, int prot)
{
	struct stack *s = stack_at(at);

	if (s && s->guarded)
		return 0;
	if (s)
		s->guarded = true;
	return failed(syscall(SYS_mprotect, at, len, prot));
}

/* --- life and death --- */

void process_init(void)
{
	pthread_attr_t attr;

	if (!pthread_getattr_np(pthread_self(), &attr)) {
		pthread_attr_getstack(&attr, &stack_bottom, &stack_bytes);
		pthread_attr_destroy(&attr);
	}
	ranges[0] = (struct range){__data_start, (size_t)(__start_lab - __data_start)};
	ranges[1] = (struct range){__stop_lab, (size_t)(_end - __stop_lab)};
	dl_iterate_phdr(find_tls, NULL);
	for (unsigned i = 0; i < 3; i++)
		statics_bytes += ranges[i].len;
	pristine = malloc(statics_bytes);
	for (unsigned i = 0; i < PROCESSES; i++)
		procs[i].statics = malloc(statics_bytes);
	save(pristine);
}

void process_new(unsigned i)
{
	if (procs[i].there)
		abort();
	procs[i].there = true;
	if (loaded == (int)i)
		loaded = NOBODY;
	memcpy(procs[i].statics, pristine, statics_bytes);
}

bool process_run(unsigned i, void (*fn)(void *arg), void *arg)
{
	jmp_buf here;
	bool lives = false;

	if (current != NOBODY || !procs[i].there)
		abort();
	load((int)i);
	out = &here;
	if (!_setjmp(here)) {
		current = (int)i;
		fn(arg);
		current = NOBODY;
		return true;
	}
#if SANITIZED
	__sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
	return lives;
}

_Noreturn void process_die(void)
{
	current = NOBODY;
#if SANITIZED
	/* whatever stack this is, it is not left by a return */
	__sanitizer_start_switch_fiber(NULL, stack_bottom, stack_bytes);
#endif
	_longjmp(*out, 1);
}

void process_end(unsigned i)
{
	for (int fd = 0; fd < FDS; fd++)
		if (fds[fd].open && fds[fd].owner == (int)i)
			close(fd);
	for (unsigned k = nmaps; k-- > 0;)
		if (maps[k].owner == (int)i) {
			syscall(SYS_munmap, maps[k].at, maps[k].len);
			maps[k] = maps[--nmaps];
		}
	for (unsigned k = 0; k < STACKS; k++)
		if (stacks[k].used && stacks[k].owner == (int)i)
			stacks[k].used = false;
	if (loaded == (int)i)
		loaded = NOBODY;
	procs[i].there = false;
	heap_reset(i);
}
