/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A target under clang's libFuzzer.  With $FUZZ_SEEDS=DIR it writes the target's seeds there, and
 * its words to DIR.dict, and ends. */
#include <errno.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

uint64_t fuzz_count;

static FILE *create(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f) {
		fprintf(stderr, "%s: cannot write %s: %s\n", fuzz_name, path, strerror(errno));
		exit(1);
	}
	return f;
}

static void write_seeds(const char *dir)
{
	static uint8_t seed[FUZZ_SIZE_MAX];
	char path[4096];
	size_t n;
	FILE *f;

	mkdir(dir, 0755);
	for (unsigned i = 0; (n = fuzz_seed(i, seed)) != 0; i++) {
		snprintf(path, sizeof path, "%s/seed-%u", dir, i);
		f = create(path);
		fwrite(seed, 1, n, f);
		fclose(f);
	}
	snprintf(path, sizeof path, "%s.dict", dir);
	f = create(path);
	for (unsigned i = 0; fuzz_words[i]; i++) {
		fputc('"', f);
		for (const char *p = fuzz_words[i]; *p; p++)
			fprintf(f, "\\x%02x", (unsigned char)*p);
		fputs("\"\n", f);
	}
	fclose(f);
	exit(0);
}

static void say_count(void)
{
	fprintf(stderr, "%s: %llu %s\n", fuzz_name, (unsigned long long)fuzz_count, fuzz_unit);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *dir = getenv("FUZZ_SEEDS");

	fuzz_start();
	if (dir && *dir)
		write_seeds(dir);
	atexit(say_count);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_one(data, size);
}
