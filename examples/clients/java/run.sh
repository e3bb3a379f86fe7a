#!/usr/bin/env bash
# Runs what build.sh made: run.sh REWARD_TARGET POLICY_TARGET; PALATE_JAVA_BUILD names the folder where it is not build/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/classpath.sh"
exec java -cp "${PALATE_JAVA_BUILD:-$here/build}/classes:$classpath" Client "$@"
