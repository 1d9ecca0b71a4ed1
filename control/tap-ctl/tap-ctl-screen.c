/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tap-ctl/tap-ctl-screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "lib/output.h"

static struct termios before;
static bool open_now;
static volatile sig_atomic_t end, stop, resized;
static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};

bool tc_screen_possible(void)
{
	const char *term = getenv("TERM");

	return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && *term &&
	       strcmp(term, "dumb") != 0;
}

static void on_signal(int sig)
{
	if (sig == SIGWINCH)
		resized = 1;
	else if (sig == SIGTSTP)
		stop = 1;
	else
		end = 1;
}

/* Another screen, no cursor, keys as they come and without an echo. */
static void take_terminal(void)
{
	struct termios raw = before;

	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
	fputs("\033[?1049h\033[?25l\033[2J", stdout);
	fflush(stdout);
	open_now = true;
}

void tc_screen_close(void)
{
	if (!open_now)
		return;
	open_now = false;
	fputs("\033[0m\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
}

int tc_screen_open(struct td_err *err)
{
	struct sigaction sa = {.sa_handler = on_signal};
	sigset_t all;

	if (tcgetattr(STDIN_FILENO, &before) < 0)
		return td_fail(err, errno, "cannot ask the terminal for its settings: %s",
			       strerror(errno));
	/* they come in while we wait, and at no other time */
	sigemptyset(&all);
	for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) {
		sigaddset(&all, caught[i]);
		sigaction(caught[i], &sa, NULL);
	}
	sigprocmask(SIG_BLOCK, &all, NULL);
	atexit(tc_screen_close);
	take_terminal();
	return 0;
}

void tc_screen_size(int *lines, int *columns)
{
	struct winsize w;
	bool known = !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_row && w.ws_col;

	*lines = known ? w.ws_row : 24;
	*columns = known ? w.ws_col : 80;
}

void tc_screen_begin(void)
{
	fputs("\033[H", stdout);
}

void tc_screen_line(const char *text, int columns, bool reverse)
{
	if (reverse)
		fputs("\033[7m", stdout);
	for (unsigned control; *text; text += control ? control : 1) {
		/* of a character that takes one column, as most do */
		bool goes_on = ((unsigned char)*text & 0xc0) == 0x80;

		if (!goes_on && --columns < 0)
			break;
		control = td_control(text);
		putchar(control ? '?' : *text);
	}
	for (; reverse && columns > 0; columns--)
		putchar(' ');
	fputs("\033[0m\033[K\n", stdout);
}

void tc_screen_end(void)
{
	fputs("\033[J", stdout);
	fflush(stdout);
}

/* As if we had never been here; then on as before. */
static void pause_ourselves(void)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL}, sa = {.sa_handler = on_signal};
	sigset_t tstp;

	stop = 0;
	tc_screen_close();
	sigemptyset(&tstp);
	sigaddset(&tstp, SIGTSTP);
	sigaction(SIGTSTP, &dfl, NULL);
	raise(SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &tstp, NULL); /* stops here */
	sigprocmask(SIG_BLOCK, &tstp, NULL);
	sigaction(SIGTSTP, &sa, NULL);
	take_terminal();
}

int tc_screen_wait(double seconds)
{
	struct timespec left = {.tv_sec = (time_t)seconds,
				.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	sigset_t none;
	char key;
	int n;

	sigemptyset(&none);
	n = ppoll(&p, 1, &left, &none);
	if (end)
		return -2;
	if (stop) {
		pause_ourselves();
		return -1;
	}
	if (resized) {
		resized = 0;
		return -1;
	}
	if (n <= 0)
		return n < 0 ? -1 : 0;
	n = (int)read(STDIN_FILENO, &key, 1);
	return n == 1 ? (unsigned char)key : -2; /* the terminal is gone */
}
