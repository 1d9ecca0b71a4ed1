/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD protocol's numbers (NetworkBlockDevice/nbd, doc/proto.md): what is on the wire, and
 * nothing else.  All is big-endian.
 */
#ifndef TD_LIB_NBD_PROTO_H
#define TD_LIB_NBD_PROTO_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define NBD_MAGIC            UINT64_C(0x4e42444d41474943) /* NBDMAGIC */
#define NBD_OPTION_MAGIC     UINT64_C(0x49484156454f5054) /* IHAVEOPT */
#define NBD_OLD_MAGIC        UINT64_C(0x00420281861253)
#define NBD_REPLY_MAGIC      UINT64_C(0x0003e889045565a9) /* of an option */
#define NBD_REQUEST_MAGIC    0x25609513u
#define NBD_SIMPLE_MAGIC     0x67446698u
#define NBD_STRUCTURED_MAGIC 0x668e33efu

/* flags of the handshake, both ways */
enum {
	NBD_FIXED_NEWSTYLE = 1u << 0,
	NBD_NO_ZEROES = 1u << 1,
};

enum {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

enum {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,
	NBD_REP_INFO = 3,
	NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP   0x80000001u
#define NBD_REP_ERR_INVALID 0x80000003u
#define NBD_REP_ERR_TLS     0x80000005u /* TLS_REQD */
#define NBD_REP_ERR_TOO_BIG 0x80000009u
#define NBD_REP_ERROR       0x80000000u /* the bit that all of these have */

/* bytes behind an export's size and flags, where nobody has said NO_ZEROES */
#define NBD_OLD_ZEROES 124

enum { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

/* what an export can do */
enum {
	NBD_FLAG_HAS_FLAGS = 1u << 0,
	NBD_FLAG_READ_ONLY = 1u << 1,
	NBD_FLAG_SEND_FLUSH = 1u << 2,
	NBD_FLAG_SEND_FUA = 1u << 3,
	NBD_FLAG_SEND_TRIM = 1u << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1u << 6,
	NBD_FLAG_SEND_DF = 1u << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1u << 8,
	NBD_FLAG_SEND_FAST_ZERO = 1u << 11,
};

enum {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

enum {
	NBD_CMD_FUA = 1u << 0,
	NBD_CMD_NO_HOLE = 1u << 1,
	NBD_CMD_DF = 1u << 2,
	NBD_CMD_REQ_ONE = 1u << 3,
	NBD_CMD_FAST_ZERO = 1u << 4,
};

/* chunks of a structured reply */
enum {
	NBD_CHUNK_DONE = 1u << 0, /* its flag */
	NBD_CHUNK_NONE = 0,
	NBD_CHUNK_DATA = 1,
	NBD_CHUNK_HOLE = 2,
	NBD_CHUNK_STATUS = 5,
	NBD_CHUNK_ERROR = 0x8001,
	NBD_CHUNK_IS_ERROR = 0x8000, /* the bit that all of these have */
};

enum { NBD_STATE_HOLE = 1u << 0, NBD_STATE_ZERO = 1u << 1 }; /* of base:allocation */

/* errors have numbers of their own */
enum {
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

#define NBD_REQUEST_SIZE 28 /* bytes: magic 4, flags 2, type 2, cookie 8, offset 8, length 4 */
#define NBD_SIMPLE_SIZE  16 /* magic 4, error 4, cookie 8 */
#define NBD_OPTION_SIZE  16 /* magic 8, option 4, length 4 */
#define NBD_ANSWER_SIZE  20 /* of an option: magic 8, option 4, type 4, length 4 */
#define NBD_CHUNK_SIZE   20 /* magic 4, flags 2, type 2, cookie 8, length 4 */

static inline uint16_t nbd_get16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof v);
	return be16toh(v);
}

static inline uint32_t nbd_get32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return be32toh(v);
}

static inline uint64_t nbd_get64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return be64toh(v);
}

/* Each gives the place behind what it has put. */
static inline uint8_t *nbd_put16(uint8_t *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, sizeof v);
	return p + sizeof v;
}

static inline uint8_t *nbd_put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof v);
	return p + sizeof v;
}

static inline uint8_t *nbd_put64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof v);
	return p + sizeof v;
}

#endif
