# shellcheck shell=bash
# The tools that bench-peers compares, sourced by it: where they are and how each is told the same.
#
# Sourced with: top, link, scan_address, gateway_mac, scratch (when a tool is run), fail, say.
#
# A tool's name is what the tables call it; a suffix " ×2" stands for two sending threads.

# Programs and the packages they are in.
install_packages() {
    local pair missing=()
    for pair in zmap:zmap masscan:masscan ethtool:ethtool nft:nftables ip:iproute2 \
        bpf-gcc:gcc-bpf time:time; do
        # A shell has a `time` of its own.
        type -P "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    if ((${#missing[@]})); then
        say "installing ${missing[*]}"
        apt-get update -q >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            "${missing[@]}" >&2
    fi
}

senders=() sweepers=()
find_tools() {
    smtpsweep=${SMTPSWEEP:-${CARGO_TARGET_DIR:-$top/target}/release/smtpsweep}
    if [[ ! ${SMTPSWEEP:-} ]]; then
        cargo build --release --locked --quiet --manifest-path "$top/Cargo.toml" --bin smtpsweep >&2
    fi
    [[ -x $smtpsweep ]] || fail "no program at $smtpsweep"
    local debian help backend
    debian=$(zmap --config=/dev/null --version 2>&1 | awk '/^zmap/ { print $2; exit }')
    senders=("zmap $debian" masscan) sweepers=("zmap $debian" masscan)
    if [[ ${ZMAP:-} ]]; then
        [[ -x $ZMAP ]] || fail "ZMAP: no program at $ZMAP"
        senders+=("zmap new" "zmap new ×2")
        sweepers+=("zmap new")
    fi
    help=$("$smtpsweep" scan --help)
    if [[ $help == *--tx\ * ]]; then
        for backend in packet xdp live; do
            senders+=("smtpsweep $backend")
            sweepers+=("smtpsweep $backend")
            if [[ $help == *--sender-threads* ]]; then
                senders+=("smtpsweep $backend ×2")
            fi
        done
    else
        senders+=(smtpsweep)
        sweepers+=(smtpsweep)
    fi
}

# command_of TOOL SPACE RATE SECONDS COOLDOWN: fills the array `command`. Found addresses go to
# $scratch/found (or survey.db). RATE is packets a second or `max`; SECONDS bounds the sending, 0 is
# no bound.
command_of() {
    local tool=$1 space=$2 rate=$3 limit=$4 cooldown=$5 threads=1
    # zmap 4 turns batching off at rate 0, so the top is a rate that nobody reaches.
    [[ $rate != max ]] || rate=50000000
    [[ $tool != *" ×2" ]] || threads=2
    case $tool in
    zmap\ *)
        local program=zmap blocked=--blacklist-file
        if [[ $tool == "zmap new"* ]]; then
            program=$ZMAP blocked=--blocklist-file
        fi
        # An empty configuration: the packaged one blocks 10.0.0.0/8.
        : >"$scratch/empty"
        command=("$program" --config="$scratch/empty" "$blocked=$scratch/empty" -i "$link"
            -G "$gateway_mac" -p 25 -T "$threads" -r "$rate" -c "$cooldown" -q --disable-syslog
            -o "$scratch/found" "$space")
        ((limit == 0)) || command+=(-t "$limit")
        ;;
    masscan)
        command=(masscan --adapter "$link" --adapter-ip "$scan_address" --router-mac "$gateway_mac"
            -p25 --rate "$rate" --wait "$cooldown" -oL "$scratch/found" "$space")
        ;;
    smtpsweep*)
        command=("$smtpsweep" scan "$space" --no-default-blocklist --no-sessions -i "$link"
            --rate "$rate" --cooldown-time "$cooldown" -q --output-file "$scratch/survey.db")
        ((limit == 0)) || command+=(--max-runtime "$limit")
        case $tool in
        *" packet"*) command+=(--tx packet) ;;
        *" xdp"*) command+=(--tx xdp) ;;
        *" live"*) command+=(--tx live) ;;
        esac
        ((threads == 1)) || command+=(--sender-threads "$threads")
        ;;
    *) fail "no such tool: $tool" ;;
    esac
}

# found TOOL: prints how many distinct addresses the tool reported.
found() {
    case $1 in
    masscan) awk '$1 == "open" { print $4 }' "$scratch/found" | sort -u | wc -l ;;
    zmap*) awk '/^[0-9]/' "$scratch/found" | sort -u | wc -l ;;
    smtpsweep*) "$smtpsweep" export "$scratch/survey.db" --format csv --output-fields saddr |
        awk '/^[0-9]/' | sort -u | wc -l ;;
    esac
}

forget_found() {
    rm -f "$scratch/found" "$scratch"/survey.db*
}
