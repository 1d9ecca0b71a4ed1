# SPDX-License-Identifier: LGPL-2.1-or-later
# Each program's part stands in its room; the build puts the programs into bin/.
include control/tap-ctl/local.mk
include control/tapback/local.mk
include control/attach/local.mk
include control/vhd-util/local.mk
include control/cbt-util/local.mk
include control/td-qcow/local.mk
include control/units/local.mk
