# SPDX-License-Identifier: LGPL-2.1-or-later
noinst_HEADERS = \
	include/td/list.h \
	include/td/log.h \
	include/td/io.h \
	include/td/block.h \
	include/td/cache.h \
	include/td/xport.h \
	include/td/ctl.h
