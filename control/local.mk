# SPDX-License-Identifier: LGPL-2.1-or-later
# Each program's part stands in a file of its own.
include control/tap-ctl.mk
include control/tapback.mk
include control/vhd-util.mk
include control/units.mk
include control/td-qcow.mk
