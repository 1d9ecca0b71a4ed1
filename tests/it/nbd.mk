# SPDX-License-Identifier: LGPL-2.1-or-later
# NBD, by its usual clients
NBD_TESTS = \
	tests/it/nbd-tools.sh \
	tests/it/nbd-life.sh \
	tests/it/nbd-hostile.sh \
	tests/it/nbd-client.sh \
	tests/it/nbd-dead.sh \
	tests/it/nbd-again.sh
TESTS += $(NBD_TESTS)
EXTRA_DIST += \
	tests/it/nbd-lib.sh \
	$(NBD_TESTS) \
	tests/support/nbd-commands.py \
	tests/support/nbd-life.py \
	tests/support/nbd-hostile.py \
	tests/support/nbd-server.py \
	tests/support/nbd-pass.py \
	tests/support/nbd-survive.py \
	tests/support/nbd-cd.py
