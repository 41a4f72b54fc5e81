# shellcheck shell=bash
# What the scripts share: the root of the repository, the tools' folder, messages and builds. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # links into the tools' cache, made by script/deps
tools=$root/build/tools

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# build PRESET [cmake options]: configures and builds build/PRESET.
build() {
    local preset=$1
    shift
    say "building build/$preset"
    (cd "$root" && cmake --preset "$preset" "$@" && cmake --build --preset "$preset") >&2
}

# build_mutants: after build release, the programs that are broken on purpose.
build_mutants() {
    say "building the mutants"
    (cd "$root" && cmake --build --preset release --target mutants) >&2
}
