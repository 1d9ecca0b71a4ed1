# SPDX-License-Identifier: LGPL-2.1-or-later
lib_libtd_a_SOURCES += \
	lib/fiber/await.c \
	lib/fiber/await.h \
	lib/fiber/call.c \
	lib/fiber/call.h \
	lib/fiber/fiber-lock.c \
	lib/fiber/fiber-lock.h \
	lib/fiber/fiber-switch.c \
	lib/fiber/fiber-switch.h \
	lib/fiber/fiber.c \
	lib/fiber/fiber.h
