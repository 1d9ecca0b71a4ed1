/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What tests/support/xenmem.c and a guest whose memory it shows agree about. */
#ifndef TESTS_XENMEM_H
#define TESTS_XENMEM_H

#define XENMEM_REF (1u << 20) /* plus a page's number: its grant.  0 is none in xenstore. */

#endif
