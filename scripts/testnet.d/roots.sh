# shellcheck shell=bash
# roots.sh: the packages scripts/testnet needs and the mail servers' root directories.
#
# The servers' packages exclude each other, so each gets a root directory of its own:
# a copy of one base system, with the server installed by the machine's own sources.
# A root appears in the cache under its name only when it is complete. Sourced by
# scripts/testnet, which sets: cache, parts.

: "${cache:?}" "${parts:?}"

# --- packages -------------------------------------------------------------

install_packages() {
    local missing=() pair
    for pair in nft:nftables ip:iproute2 openssl:openssl unshare:util-linux flock:util-linux \
        mount:mount mmdebstrap:mmdebstrap awk:mawk sysctl:procps; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    echo "testnet: installing ${missing[*]}" >&2
    local log
    log=$(mktemp)
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "could not install ${missing[*]} with apt-get; see above"
    fi
    rm -f "$log"
}

# --- server roots ---------------------------------------------------------

# The machine's own Debian sources as one-line entries, so that a mirror or a
# proxy configured for the machine serves the roots too.
debian_sources() {
    # shellcheck disable=SC2016  # apt's variables, not ours
    apt-get indextargets --format '$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' | awk -F'|' '$1 == "Debian" { print $2 }' | sort -u
}

# In a root directory, as the host mail.example.test and with no mail server started.
in_root() {
    local root=$1
    shift
    # shellcheck disable=SC2016  # the inner shell's variables
    unshare --mount --uts --ipc --pid --fork --kill-child bash -euo pipefail -c '
        mount -t proc proc "$1/proc"
        hostname mail.example.test
        exec chroot "$@"
    ' in_root "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C \
        DEBIAN_FRONTEND=noninteractive "${proxies[@]}" "$@"
}

# build_root NAME LOG COMMAND…: run COMMAND with a scratch directory's name as its
# last argument; the root gets its name only once it is complete.
build_root() {
    local dir=$cache/$1 log=$2 scratch
    shift 2
    scratch=$(mktemp -d "$cache/.building.XXXXXX")
    # In a subshell, because `set -e` has no force within a condition.
    "$@" "$scratch/root" >"$log" 2>&1 &
    if ! wait "$!"; then
        tail -n 20 "$log" >&2
        rm -rf --one-file-system "$scratch"
        fail "could not build $dir; the whole log is $log"
    fi
    mv -T "$scratch/root" "$dir"
    rm -rf --one-file-system "$scratch"
}

make_base() {
    local root=$1 sources codename
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    sources=$(debian_sources)
    if [[ -z $sources ]]; then # a machine that never ran apt-get update
        apt-get update -q
        sources=$(debian_sources)
    fi
    local options=() line
    while read -r line; do
        options+=("--aptopt=$line")
    done < <(apt-config dump | grep -iE '^Acquire::[a-z]+::(proxy|proxy-auto-detect)\b' || true)
    # Documentation is left out and nothing is synced: the roots can be made again.
    # What mmdebstrap mounts is none of the machine's business, should it be killed.
    unshare --mount mmdebstrap --variant=apt --skip=cleanup/apt --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --aptopt='APT::Install-Recommends "false"' "${options[@]}" \
        "$codename" "$root" - <<<"$sources"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    # No resolver: a look-up is refused at once instead of timing out.
    rm -f "$root/etc/resolv.conf"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    echo mail.example.test >"$root/etc/hostname"
    echo mail.example.test >"$root/etc/mailname"
    printf '127.0.0.1 localhost\n127.0.1.1 mail.example.test mail\n' >"$root/etc/hosts"
}

make_server_root() {
    local server=$1 root=$2 packages
    packages=$("$parts/servers/$server" packages)
    cp -a "$cache/base" "$root"
    "$parts/servers/$server" preseed >"$root/tmp/preseed"
    in_root "$root" debconf-set-selections /tmp/preseed
    # shellcheck disable=SC2086  # several packages
    in_root "$root" apt-get install -q -y $packages
    in_root "$root" apt-get clean
    rm -rf "$root/tmp/preseed" "$root"/var/lib/apt/lists/*
    echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
}

# The root directory a server runs from: several servers may share one.
root_of() {
    "$parts/servers/$1" root
}

build_servers() {
    install_packages
    mkdir -p "$cache"
    exec 8>"$cache/.lock"
    flock 8
    rm -rf --one-file-system "$cache"/.building.* # left by a build that was interrupted
    proxies=()
    local variable
    for variable in http_proxy https_proxy no_proxy; do
        [[ -z ${!variable:-} ]] || proxies+=("$variable=${!variable}")
    done
    local server root waiting=() pid
    local -A wanted=()
    for server in "$@"; do
        root=$(root_of "$server")
        [[ -d $cache/$root ]] || wanted[$root]=$server
    done
    if ((${#wanted[@]})); then
        if [[ ! -d $cache/base ]]; then
            echo "testnet: building the base system of the mail servers" >&2
            build_root base "$cache/base.log" make_base
        fi
        # Two at a time: they wait for the network in turns.
        for root in "${!wanted[@]}"; do
            echo "testnet: building $root" >&2
            build_root "$root" "$cache/$root.log" make_server_root "${wanted[$root]}" &
            waiting+=($!)
            if ((${#waiting[@]} >= 2)); then
                wait "${waiting[0]}"
                waiting=("${waiting[@]:1}")
            fi
        done
        for pid in "${waiting[@]}"; do
            wait "$pid"
        done
    fi
    exec 8>&-
}
