# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Sourced by scripts under `set -e' or pipefail: a command that fails, and is neither tested nor expected to, names its file, line and text.
# Without it a script such as `x=$(ls nothing | tail -1)' ends without a word.
errtrap()
{
	local rc=$1 line=$2 command=$3 i

	echo "${BASH_SOURCE[1]}:$line: status $rc from: ${command%%$'\n'*}" >&2
	for ((i = 1; i < ${#FUNCNAME[@]} - 1; i++)); do
		echo "   in ${FUNCNAME[i]}, called at ${BASH_SOURCE[i + 1]}:${BASH_LINENO[i]}" >&2
	done
}
set -o errtrace # in functions and subshells too
trap 'errtrap "$?" "$LINENO" "$BASH_COMMAND"' ERR
