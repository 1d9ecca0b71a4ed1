# SPDX-License-Identifier: LGPL-2.1-or-later
# A library of its own: not every program needs OpenSSL's TLS.
noinst_LIBRARIES += lib/libtdtls.a
lib_libtdtls_a_SOURCES = \
	lib/tls/tls-client.c \
	lib/tls/tls-context.c \
	lib/tls/tls-jail.c \
	lib/tls/tls-psk.c \
	lib/tls/tls-relay.c \
	lib/tls/tls-server.c \
	lib/tls/tls-start.c \
	lib/tls/tls.h
lib_libtdtls_a_CFLAGS = $(AM_CFLAGS) $(SSL_CFLAGS)
TLS_LIBS = lib/libtdtls.a $(SSL_LIBS)
