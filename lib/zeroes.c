/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/zeroes.h"

const uint8_t td_zeroes[TD_ZEROES] __attribute__((aligned(4096))) = {0};
