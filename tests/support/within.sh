# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Sourced: one limit of time for all tests together, $WITHIN minutes from here on.  Each part of the run has a share of it.  What has not begun
# when its share is over is left out, told, and counted as skipped; with each commit something else is.
began=$EPOCHSECONDS

# When that share is over, in seconds since 1970; nothing where there is no limit.
by() # PERCENT
{
	[ -z "${WITHIN:-}" ] || echo $((began + WITHIN * 60 * $1 / 100))
}

# Whether something may still begin.
in_time() # PERCENT WHAT
{
	[ -z "${WITHIN:-}" ] || [ "$EPOCHSECONDS" -lt "$(by "$1")" ] || {
		echo "   no time was left for $2"
		skipped=$((skipped + 1))
		return 1
	}
}

# Lines in an order that the commit decides, and nothing else.
shuffled() # SOURCE
{
	shuf --random-source=<(yes "$(commit_of "$1")")
}
# Words in their order, but from another one on with each commit.
from_another() # SOURCE WORDS
{
	local words first

	read -r -d '' -a words <<<"$2" || true
	first=$((16#$(commit_of "$1" | cut -c1-7) % ${#words[@]}))
	echo "${words[@]:first}" "${words[@]:0:first}"
}
commit_of() { git -C "$1" rev-parse HEAD 2>/dev/null || echo 0000000; }
