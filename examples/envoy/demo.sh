#!/usr/bin/env bash
# The main job in one command: builds Convoy and the demo's agent, gets a real Envoy, and tells the story on the
# terminal (demo.py). Options are the story's: --keep leaves it all running, --help lists them.
set -euo pipefail

fail() {
  echo "demo: $*" >&2
  exit 1
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
command -v cargo >/dev/null || fail "cargo is missing: install Rust with rustup"
command -v python3 >/dev/null || fail "python3 is missing: install Python 3.8 or later"

case " $* " in *" --help "* | *" -h "*) exec python3 -B "$here/demo.py" --help ;; esac

# The dev profile: on a fresh machine it builds in about half the time of a release, and nothing that the demo shows
# needs an optimised binary. The whole workspace, and `--examples` (there are none), for the very features of
# `cargo test --workspace`: then neither builds again what the other has built.
echo "Building Convoy and the demo's agent (the first time takes a few minutes)"
cargo build --manifest-path "$root/Cargo.toml" --locked --workspace --bins --examples
target=$(cd "${CARGO_TARGET_DIR:-$root/target}" && pwd)
envoy=$("$here/get-envoy.sh")

# exec: Ctrl-C and signals go to the story, which cleans up.
exec python3 -B "$here/demo.py" --convoy "$target/debug/convoy" --agent "$target/debug/demo-agent" \
  --envoy "$envoy" "$@"
