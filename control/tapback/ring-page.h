/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest's ring from outside: the two indices that tell whether it waits.  Nothing else of it is
 * looked at. */
#ifndef TD_CONTROL_RING_PAGE_H
#define TD_CONTROL_RING_PAGE_H

#include <stdbool.h>
#include <stdint.h>

/* Maps the page for reading, looks, and unmaps it.  False when that cannot be done (no Xen, no such
 * grant): then nothing is known. */
bool ring_page_look(unsigned domid, uint32_t ref, uint32_t *req_prod, uint32_t *rsp_prod);

#endif
