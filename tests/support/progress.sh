# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Sourced: shows that a long command goes on.

# Runs a command into a log and returns its status.  A terminal shows the log's last line, renewed each second; a file gets a line each
# half minute.
quiet() # LOG COMMAND...
{
	local log=$1 pid t=$SECONDS shown=0 last

	shift
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	while kill -0 $pid 2>/dev/null; do
		if [ $((SECONDS - t)) -lt 3 ] || [ -t 1 ]; then sleep 0.2; else sleep 1; fi
		[ $((SECONDS - t)) -gt "$shown" ] || continue
		last=$(tail -c 300 "$log" 2>/dev/null | tail -n 1 | tr -cd '[:print:]' | cut -c1-70)
		if [ -t 1 ]; then
			shown=$((SECONDS - t))
			printf '\r\033[K   ... %d s: %s' $shown "$last"
		elif [ $((SECONDS - t)) -ge $((shown + 30)) ]; then
			shown=$((SECONDS - t))
			echo "   ... $shown s: $last"
		fi
	done
	[ ! -t 1 ] || printf '\r\033[K'
	wait $pid
}
