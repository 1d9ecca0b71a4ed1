# SPDX-License-Identifier: LGPL-2.1-or-later
# NBD, by its usual clients
NBD_TESTS = \
	tests/it/nbd-tools.sh \
	tests/it/nbd-life.sh \
	tests/it/nbd-hostile.sh \
	tests/it/nbd-client.sh \
	tests/it/nbd-client-lies.sh \
	tests/it/nbd-dead.sh \
	tests/it/nbd-again.sh \
	tests/it/nbd-conns.sh \
	tests/it/nbd-tcp.sh \
	tests/it/nbd-tls.sh \
	tests/it/nbd-tls-death.sh \
	tests/it/export.sh \
	tests/it/export-tls.sh
TESTS += $(NBD_TESTS)
EXTRA_DIST += \
	tests/it/nbd-lib.sh \
	tests/it/tls-lib.sh \
	tests/it/export-lib.sh \
	tests/it/nbd-client-lib.sh \
	tests/it/nbd-tls-lib.sh \
	$(NBD_TESTS) \
	tests/support/nbd-commands.py \
	tests/support/nbd-life.py \
	tests/support/nbd-no-tls.py \
	tests/support/nbd-stranger.py \
	tests/support/nbd-hostile.py \
	tests/support/nbd-server.py \
	tests/support/nbd-pass.py \
	tests/support/nbd-survive.py \
	tests/support/nbd-cd.py \
	tests/support/tcp-relay.py
