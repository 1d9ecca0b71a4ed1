/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/formats.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "tests/crash/changed-check.h"

/* The parent's pattern is in every other 16 sectors. */
#define PATTERN_EVERY         16
#define PATTERN(size_sectors) "$CRASHLAB --pattern base " #size_sectors " 16"

/* clang-format off: tables */

/* Of a kind, and what tells one from the others: its guest's disk (sectors), and its edge. */
#define RAW(bytes) .type = "aio", .align = bytes, .qemu = "raw", .sectors = 256, .edge = 8
#define ZEROED     .align = 512, .initial = TAG_ZERO
#define ZEROED_4K  .align = 4096, .initial = TAG_ZERO
#define UPON       .align = 512, .initial = TAG_INITIAL, .initial_every = PATTERN_EVERY
#define AS_QCOW2   .type = "qcow2", .qemu = "qcow2", .checkable = true
#define QCOW2      AS_QCOW2, ZEROED
#define QCOW2_4K   AS_QCOW2, ZEROED_4K
#define QCOW2_UPON AS_QCOW2, UPON, .sectors = 8192, .edge = 128
#define VHD        .type = "vhd", ZEROED
#define VHD_QEMU   VHD, .qemu = "vpc", .qemu_differs = true
#define VHD_4K     .type = "vhd", ZEROED_4K, .qemu = "vpc", .qemu_differs = true
#define VHD_UPON   .type = "vhd", UPON, .sectors = 8192, .edge = 4096
#define DEVICE     .blockdev = true
#define SIZE(s, e) .sectors = s, .edge = e

#define CREATE_QCOW2(options) "qemu-img create -q -f qcow2 -o " options " leaf 16M"
#define QCOW2_OVER            "qemu-img create -q -f qcow2 "
#define CREATE_VHD            CREATE_BASE "leaf "
#define CREATE_BASE           "$VHD_UTIL create -n "
#define SNAP                  "$VHD_UTIL snapshot -n "
#define CREATE_QCOW           "qemu-img create -q -f qcow leaf 16M"
/* What npm's vhd-lib reads in leaf, mid and base, once the leaf has its footer at the end again.
 * ./run says where it is. */
#define VHD_LIB                                                                                    \
	"[ -n \"$VHD_LIB_JUDGE\" ] && [ -d \"$NODE_PATH/vhd-lib\" ] && command -v node "           \
	">/dev/null || exit 127; "                                                                 \
	"$VHD_UTIL repair -n leaf && node \"$VHD_LIB_JUDGE\" synth out.vhd leaf mid base && "      \
	"qemu-img convert -O raw --image-opts "                                                    \
	"driver=vpc,force_size_calc=current_size,file.filename=out.vhd out"

const struct format formats[] = {
	{.name = "raw-file", RAW(512), .initial = TAG_ZERO},
	{.name = "raw-file-4k", RAW(4096), .initial = TAG_ZERO},
	{.name = "raw-device", RAW(512), DEVICE, .initial = TAG_FILLED},
	{.name = "raw-device-4k", RAW(4096), DEVICE, .initial = TAG_FILLED},

	{.name = "qcow2", QCOW2, SIZE(32768, 128), .create = CREATE_QCOW2("compat=1.1")},
	{.name = "qcow2-v2", QCOW2, SIZE(32768, 128), .create = CREATE_QCOW2("compat=0.10")},
	{.name = "qcow2-lazy",
	 QCOW2,
	 SIZE(32768, 128),
	 .create = CREATE_QCOW2("lazy_refcounts=on")},
	{.name = "qcow2-lazy-512",
	 QCOW2,
	 SIZE(32768, 64),
	 .create = CREATE_QCOW2("lazy_refcounts=on,cluster_size=512")},
	{.name = "qcow2-extended",
	 QCOW2,
	 SIZE(32768, 128),
	 .create = CREATE_QCOW2("extended_l2=on")},
	{.name = "qcow2-512", QCOW2, SIZE(32768, 64), .create = CREATE_QCOW2("cluster_size=512")},
	{.name = "qcow2-2m", QCOW2, SIZE(32768, 4096), .create = CREATE_QCOW2("cluster_size=2M")},
	{.name = "qcow2-refcount-1",
	 QCOW2,
	 SIZE(32768, 64),
	 .create = CREATE_QCOW2("cluster_size=512,refcount_bits=1")},
	{.name = "qcow2-data-file",
	 QCOW2,
	 SIZE(32768, 128),
	 .create = CREATE_QCOW2("data_file=data")},
	{.name = "qcow2-device",
	 QCOW2,
	 SIZE(32768, 128),
	 DEVICE,
	 .create = CREATE_QCOW2("compat=1.1")},
	{.name = "qcow2-4k", QCOW2_4K, SIZE(32768, 64), .create = CREATE_QCOW2("cluster_size=512")},
	{.name = "qcow2-backing-3",
	 QCOW2_UPON,
	 .create = PATTERN(8192) " && " QCOW2_OVER "-b base -F raw mid && " QCOW2_OVER
				 "-b mid -F qcow2 leaf"},

	{.name = "qcow",
	 .type = "qcow",
	 .align = 512,
	 .initial = TAG_ZERO,
	 .qemu = "qcow",
	 SIZE(32768, 8),
	 .create = CREATE_QCOW},

	{.name = "vhd", VHD_QEMU, SIZE(32768, 4096), .create = CREATE_VHD "-s 16"},
	{.name = "vhd-fixed", VHD_QEMU, SIZE(8192, 4096), .create = CREATE_VHD "-s 4 -r"},
	{.name = "vhd-device", VHD, SIZE(32768, 4096), DEVICE, .create = CREATE_VHD "-s 16"},
	{.name = "vhd-4k", VHD_4K, SIZE(32768, 4096), .create = CREATE_VHD "-s 16"},
	{.name = "vhd-differencing-3",
	 VHD_UPON,
	 .create = PATTERN(8192) " && " SNAP "mid -p base -m && " SNAP "leaf -p mid -e"},
	/* a chain that vhd-lib can read: its root is a VHD too */
	{.name = "vhd-chain-3",
	 VHD_UPON,
	 .other = VHD_LIB,
	 .create = PATTERN(
		 8192) " && mv base data && " SNAP "top -p data -m && "
		       "$VHD_UTIL coalesce -n top -o base >/dev/null && rm top data && " SNAP
		       "mid -p base && " SNAP "leaf -p mid -e"},
	{.name = NULL},
};

/* Chains of two that a snapshot may be put on, and what is not cut elsewhere. */
#define SNAP_QCOW2 " && qemu-img create -q -f qcow2 -b leaf -F qcow2 snap"
#define SNAP_VHD   " && " SNAP "snap -p leaf -e"

const struct format formats_host[] = {
	{.name = "raw-file", RAW(512), .initial = TAG_ZERO},
	{.name = "raw-file-4k", RAW(4096), .initial = TAG_ZERO},
	{.name = "raw-device", RAW(512), DEVICE, .initial = TAG_FILLED},

	{.name = "raw-mirror", RAW(512), .initial = TAG_ZERO, .mirrored = true},
	{.name = "raw-mirror-4k", RAW(4096), .initial = TAG_ZERO, .mirrored = true},

	/* leaves that become full, and what takes their place */
	{.name = "raw-standby",
	 RAW(512),
	 .initial = TAG_ZERO,
	 .joins = JOINS_STANDBY,
	 .create =
		 "truncate -s 128K leaf && " QCOW2_OVER "-o cluster_size=4096 -b leaf -F raw copy"},
	{.name = "qcow2-secondary",
	 QCOW2_UPON,
	 .joins = JOINS_READ,
	 .create = PATTERN(8192) " && " QCOW2_OVER "-b base -F raw leaf && " QCOW2_OVER
				 "-b base -F raw copy"},

	{.name = "vhd", VHD_QEMU, SIZE(32768, 4096), .create = CREATE_VHD "-s 16" SNAP_VHD},
	{.name = "vhd-fixed", VHD_QEMU, SIZE(8192, 4096), .create = CREATE_VHD "-s 4 -r"},
	{.name = "vhd-4k", VHD_4K, SIZE(32768, 4096), .create = CREATE_VHD "-s 16"},
	{.name = "vhd-device", VHD, SIZE(32768, 4096), DEVICE, .create = CREATE_VHD "-s 16"},
	{.name = "vhd-8m",
	 VHD,
	 SIZE(65536, 16384),
	 .create = CREATE_VHD "-s 32 && python3 $VHD_BLOCKS leaf 8388608"},
	{.name = "vhd-512k",
	 VHD,
	 SIZE(8192, 1024),
	 .create = CREATE_VHD "-s 4 && python3 $VHD_BLOCKS leaf 524288"},
	{.name = "vhd-differencing-2",
	 VHD_UPON,
	 .create = PATTERN(8192) " && " SNAP "leaf -p base -m -e" SNAP_VHD},
	{.name = "vhd-encrypted",
	 VHD,
	 SIZE(32768, 4096),
	 .create = "k=leaf,aes-xts-plain,256.key && printf %32s x >$k && " CREATE_VHD "-s 16 && "
		   "$VHD_UTIL key -s -n leaf -k $k && mv $k key"},

	{.name = "qcow2", QCOW2, SIZE(32768, 128), .create = CREATE_QCOW2("compat=1.1") SNAP_QCOW2},
	{.name = "qcow2-512", QCOW2, SIZE(32768, 64), .create = CREATE_QCOW2("cluster_size=512")},
	{.name = "qcow2-v2", QCOW2, SIZE(32768, 128), .create = CREATE_QCOW2("compat=0.10")},
	{.name = "qcow2-lazy",
	 QCOW2,
	 SIZE(32768, 128),
	 .create = CREATE_QCOW2("lazy_refcounts=on") SNAP_QCOW2},
	{.name = "qcow2-extended",
	 QCOW2,
	 SIZE(32768, 128),
	 .create = CREATE_QCOW2("extended_l2=on")},
	/* as few iterations as can be: each open derives the key anew */
	{.name = "qcow2-luks",
	 .type = "qcow2",
	 .align = 512,
	 .initial = TAG_ZERO,
	 SIZE(32768, 128),
	 .create = "printf secret >key && $TD_QCOW create -E -o "
		   "encrypt.format=luks,encrypt.iter-time=1 leaf 16M <key >/dev/null"},
	{.name = "qcow2-data-file",
	 QCOW2,
	 SIZE(32768, 128),
	 .create = CREATE_QCOW2("data_file=data")},
	/* a table of counts that is full but for a few clusters: 64 blocks of 64 counts, of 512
	   bytes each */
	{.name = "qcow2-growing",
	 QCOW2,
	 SIZE(32768, 64),
	 .create = CREATE_QCOW2(
		 "cluster_size=512,refcount_bits=64") " && qemu-io -f qcow2 -c 'write -z -u 0 16M' "
						      "-c 'write -P 0 14M 1944k' "
						      "-c 'discard 14M 8k' leaf >/dev/null"},
	{.name = "qcow2-growing-lazy",
	 QCOW2,
	 SIZE(32768, 64),
	 .create = CREATE_QCOW2(
		 "cluster_size=512,refcount_bits=64,lazy_refcounts=on") " && qemu-io -f qcow2 -c "
									"'write -P 0 14M 1944k' "
									"leaf >/dev/null"},
	{.name = "qcow2-bitmaps",
	 QCOW2,
	 SIZE(32768, 64),
	 .create = CREATE_QCOW2("cluster_size=512") " && qemu-img bitmap --add leaf one && "
						    "qemu-img bitmap --add -g 512 leaf two"},
	{.name = "qcow2-4k", QCOW2_4K, SIZE(32768, 128), .create = CREATE_QCOW2("compat=1.1")},
	{.name = "qcow2-device",
	 QCOW2,
	 SIZE(32768, 128),
	 DEVICE,
	 .create = CREATE_QCOW2("compat=1.1")},
	{.name = "qcow2-backing",
	 QCOW2_UPON,
	 .create = PATTERN(8192) " && " QCOW2_OVER "-b base -F raw leaf" SNAP_QCOW2},

	/* images that are committed while the disk is in use: mid holds what the guest has */
	{.name = "qcow2-commit",
	 QCOW2_UPON,
	 .commits = COMMITS_MIDDLE,
	 .create = PATTERN(8192) " && mv base data && qemu-img create -q -f qcow2 base 4M && "
				 "qemu-img convert -f raw -O qcow2 -B base -F qcow2 data mid && "
				 "rm data && " QCOW2_OVER "-b mid -F qcow2 leaf"},
	/* chains of four, of which low2 holds what the guest reads, and hides other bytes below */
	{.name = "qcow2-commit-4",
	 QCOW2_UPON,
	 .commits = COMMITS_ANY,
	 .create = PATTERN(8192) " && mv base data && qemu-img create -q -f qcow2 base 4M && "
				 "qemu-io -f qcow2 -c 'write -q -P 85 0 4M' base && " QCOW2_OVER
				 "-b base -F qcow2 low1 && qemu-io -f qcow2 -c 'write -q -P 170 0 "
				 "2M' low1 && qemu-img convert -f raw -O qcow2 -B low1 -F qcow2 "
				 "data low2 && rm data && " QCOW2_OVER "-b low2 -F qcow2 leaf"},
	{.name = "vhd-commit-4",
	 VHD_UPON,
	 .commits = COMMITS_ANY,
	 .create = PATTERN(8192) " && mv base data && " CREATE_BASE "base -s 4 && " SNAP
				 "low1 -p base -e && " SNAP "low2 -p data -m && "
				 "$VHD_UTIL fill -n low2 && $VHD_UTIL modify -n low2 -p low1 && "
				 "rm data && " SNAP "leaf -p low2 -e"},
	{.name = "vhd-commit-raw",
	 VHD_UPON,
	 .commits = COMMITS_ANY,
	 .create = PATTERN(
		 8192) " && mv base data && head -c 4M /dev/zero | tr '\\0' U >base && " SNAP
		       "low1 -p base -m && " SNAP "low2 -p data -m && "
		       "$VHD_UTIL fill -n low2 && $VHD_UTIL modify -n low2 -p low1 && "
		       "rm data && " SNAP "leaf -p low2 -e"},
	{.name = "qcow",
	 .type = "qcow",
	 .align = 512,
	 .initial = TAG_ZERO,
	 .qemu = "qcow",
	 SIZE(32768, 8),
	 .create = CREATE_QCOW},
	{.name = NULL},
};
/* clang-format on */

#define DIR_NAME "/sim/" /* of the files in the simulated disk */
/* MiB that a block device is larger than a fresh image on it: room for all 16 of the guest's, and
 * metadata */
#define DEVICE_SLACK 24

const struct format *format_find(const char *name)
{
	for (const struct format *f = formats; f->name; f++)
		if (!strcmp(f->name, name))
			return f;
	return NULL;
}

const struct format *format_find_host(const char *name)
{
	for (const struct format *f = formats_host; f->name; f++)
		if (!strcmp(f->name, name))
			return f;
	return NULL;
}

bool format_has_driver(const struct format *f)
{
	static struct td_err err;

	err.code = 0;
	return td_driver_find(f->type, &err);
}

/* --- templates --- */

static int load(const char *path, struct pages *p)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char buf[PAGE];
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	pages_init(p, (uint64_t)st.st_size);
	for (uint64_t off = 0; (n = pread(fd, buf, sizeof buf, (off_t)off)) > 0; off += (uint64_t)n)
		if (buf[0] || memcmp(buf, buf + 1, (size_t)n - 1))
			pages_write(p, off, buf, (size_t)n);
	close(fd);
	return 0;
}

static int store(const char *path, const struct pages *p)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc = 0;
	unsigned char buf[PAGE];

	if (fd < 0 || ftruncate(fd, (off_t)p->size) < 0)
		rc = -errno;
	for (size_t i = 0; i < p->n && !rc; i++) {
		size_t n = p->size - i * PAGE < PAGE ? (size_t)(p->size - i * PAGE) : PAGE;

		pages_read(p, i * PAGE, buf, n);
		if (p->page[i] && pwrite(fd, buf, n, (off_t)(i * PAGE)) != (ssize_t)n)
			rc = -EIO;
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

static void remove_dir(const char *dir)
{
	char cmd[128];

	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	if (system(cmd) < 0)
		return;
}

static int read_key(const char *path, struct td_key *key)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, key->bytes, sizeof key->bytes);

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return -errno;
	key->len = (unsigned)n;
	return 0;
}

static int add_file(struct template *t, const char *dir, const char *name)
{
	char path[160];

	if (!strcmp(name, "key")) {
		snprintf(path, sizeof path, "%s/key", dir);
		return read_key(path, &t->key);
	}

	if (t->n == SIM_FILES)
		return -E2BIG;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	snprintf(t->name[t->n], sizeof t->name[0], DIR_NAME "%.50s", name);
	return load(path, &t->file[t->n++]);
}

static int from_commands(const struct format *f, struct template *t)
{
	char dir[] = "/tmp/crashlab.XXXXXX", cmd[2048];
	struct dirent *e;
	DIR *d;
	int rc;

	if (!mkdtemp(dir))
		return -errno;
	snprintf(cmd, sizeof cmd, "cd %s && { %s\n} >&2", dir, f->create);
	rc = system(cmd);
	rc = rc < 0 ? -errno : WEXITSTATUS(rc) == 127 ? -ENOENT : rc ? -EINVAL : 0;
	if (!rc)
		rc = add_file(t, dir, "leaf");
	d = rc ? NULL : opendir(dir);
	while (d && !rc && (e = readdir(d)))
		if (e->d_name[0] != '.' && strcmp(e->d_name, "leaf"))
			rc = add_file(t, dir, e->d_name);
	if (d)
		closedir(d);
	remove_dir(dir);
	return rc;
}

int format_change(const struct pages *p, const char *args, struct pages *after)
{
	char dir[] = "/dev/shm/crashlab.XXXXXX", path[64], cmd[1100];
	int rc;

	if (!mkdtemp(dir) && !mkdtemp(strcpy(dir, "/tmp/crashlab.XXXXXX")))
		return -errno;
	snprintf(path, sizeof path, "%s/leaf", dir);
	snprintf(cmd, sizeof cmd, "cd %s && %s >/dev/null 2>&1", dir, args);
	rc = store(path, p);
	if (!rc)
		rc = system(cmd) ? -EINVAL : load(path, after);
	remove_dir(dir);
	return rc;
}

/* On a block device the image stands at the start, and what lay there before is all that follows.
 */
static void on_device(struct template *t, const struct format *f)
{
	struct pages device;
	unsigned char buf[PAGE];

	pages_init(&device, f->create ? t->file[0].size + ((uint64_t)DEVICE_SLACK << 20)
				      : f->sectors * SECTOR);
	pages_fill(&device, 0xee);
	for (uint64_t off = 0; f->create && off < t->file[0].size; off += PAGE) {
		size_t n = t->file[0].size - off < PAGE ? (size_t)(t->file[0].size - off) : PAGE;

		pages_read(&t->file[0], off, buf, n);
		pages_write(&device, off, buf, n);
	}
	pages_free(&t->file[0]);
	t->file[0] = device;
	t->blockdev[0] = true;
}

/* What the commands call by name: ourselves, and the build's own tool. */
static void set_tools(void)
{
	char path[1024];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);

	if (n < 0)
		return;
	path[n] = 0;
	setenv("CRASHLAB", path, 1);
	*strrchr(path, '/') = 0;
	strcat(path, "/../../bin/vhd-util");
	setenv("VHD_UTIL", path, 0);
	strcpy(strrchr(path, '/') + 1, "td-qcow");
	setenv("TD_QCOW", path, 0);
#ifdef CRASH_SRC
	setenv("VHD_BLOCKS", CRASH_SRC "/tests/crash/vhd-blocks", 0);
#endif
}

int format_pattern(const char *path, uint64_t sectors, uint64_t every)
{
	unsigned char buf[SECTOR];
	struct pages p;
	int rc;

	pages_init(&p, sectors * SECTOR);
	for (uint64_t s = 0; s < sectors; s++)
		if (s / every % 2) {
			sector_fill(buf, 0, TAG_INITIAL, s);
			pages_write(&p, s * SECTOR, buf, SECTOR);
		}
	rc = store(path, &p);
	pages_free(&p);
	return rc;
}

int format_template(const struct format *f, struct template *t)
{
	int rc = 0;

	memset(t, 0, sizeof *t);
	set_tools();
	if (f->create) {
		rc = from_commands(f, t);
	} else {
		pages_init(&t->file[0], f->sectors * SECTOR);
		strcpy(t->name[0], DIR_NAME "leaf");
		t->n = 1;
	}
	if (!rc && f->blockdev)
		on_device(t, f);
	if (rc)
		template_free(t);
	return rc;
}

int template_add_log(struct template *t, uint64_t sectors)
{
	if (t->n == SIM_FILES)
		return -1;
	strcpy(t->name[t->n], CHANGED_NAME);
	changed_make(&t->file[t->n], sectors);
	return (int)t->n++;
}

void template_free(struct template *t)
{
	for (unsigned i = 0; i < t->n; i++)
		pages_free(&t->file[i]);
	t->n = 0;
}

/* --- a second opinion --- */

/* The last line that a command said, for the verdict. */
static int command(const char *cmd, char *text, size_t len)
{
	FILE *p = popen(cmd, "re");
	char line[256];
	int rc;

	if (!p)
		return -errno;
	while (fgets(line, sizeof line, p))
		snprintf(text, len, "%.*s", (int)strcspn(line, "\n"), line);
	rc = pclose(p);
	return WIFEXITED(rc) ? WEXITSTATUS(rc) : -EIO;
}

static int read_tags(const char *path, const uint64_t *sector, uint32_t *tag, size_t n,
		     uint64_t seed)
{
	unsigned char buf[SECTOR];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (size_t i = 0; i < n; i++) {
		memset(buf, 0, sizeof buf); /* sizes may be rounded down */
		if (pread(fd, buf, sizeof buf, (off_t)(sector[i] * SECTOR)) < 0)
			memset(buf, 0xdd, sizeof buf);
		tag[i] = sector_tag(buf, seed, sector[i]);
	}
	close(fd);
	return 0;
}

int format_qemu(const struct format *f, const struct template *t, const struct pages *files,
		const uint64_t *sector, uint32_t *tag, size_t n, uint64_t seed, char *text,
		size_t len)
{
	char dir[] = "/tmp/crashlab.XXXXXX", path[160], cmd[1024];
	int rc = 0;

	text[0] = 0;
	if (!mkdtemp(dir))
		return -errno;
	for (unsigned i = 0; i < t->n && !rc; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, t->name[i] + strlen(DIR_NAME));
		rc = store(path, &files[i]);
	}
	if (!rc && f->checkable) {
		/* an image that says that it is dirty (byte 79, bit 0) is judged after its repair
		 */
		snprintf(cmd, sizeof cmd,
			 "cd %s && dirty=$(od -An -tu1 -j79 -N1 leaf) && { [ $((dirty & 1)) = 0 ] "
			 "|| qemu-img check -q -r all -f %s leaf; } && "
			 "qemu-img check -q -f %s leaf 2>&1",
			 dir, f->qemu, f->qemu);
		rc = command(cmd, text, len);
		/* 3: leaked clusters alone, which are allowed */
		rc = rc == 127 ? -ENOENT : rc == 3 ? 0 : rc;
	}
	if (!rc) {
		if (f->other)
			snprintf(cmd, sizeof cmd, "cd %s && { %s; } 2>&1", dir, f->other);
		else
			snprintf(cmd, sizeof cmd,
				 "cd %s && qemu-img convert -f %s -O raw leaf out 2>&1", dir,
				 f->qemu);
		rc = command(cmd, text, len);
		rc = rc == 127 ? -ENOENT : rc;
	}
	if (!rc) {
		snprintf(path, sizeof path, "%s/out", dir);
		rc = read_tags(path, sector, tag, n, seed);
	}
	remove_dir(dir);
	return rc;
}
