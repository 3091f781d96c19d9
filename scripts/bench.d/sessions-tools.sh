# shellcheck shell=bash
# The clients that bench-sessions compares, sourced by it.
#
# Sourced with: top, link, scan_address, gateway_mac, masscan_ports, scratch, addresses, fail, say.

# Programs and the packages they are in.
install_packages() {
    local pair missing=()
    for pair in masscan:masscan nmap:nmap ethtool:ethtool nft:nftables ip:iproute2 time:time \
        sqlite3:sqlite3; do
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

tools=() dialogues=() connects=()
find_tools() {
    local built=${CARGO_TARGET_DIR:-$top/target}/release help
    if [[ ! ${SMTPSWEEP:-} ]]; then
        cargo build --release --locked --quiet --manifest-path "$top/Cargo.toml" \
            --bin smtpsweep --example sessionbench >&2
    fi
    smtpsweep=${SMTPSWEEP:-$built/smtpsweep} sessionbench=${SESSIONBENCH:-$built/examples/sessionbench}
    [[ -x $smtpsweep && -x $sessionbench ]] || fail "no programs at $smtpsweep and $sessionbench"
    help=$("$smtpsweep" scan --help)
    # Where it knows but one dialogue or one way to connect, that is what it does.
    dialogues=() connects=()
    [[ $help != *--dialogue\ * ]] || dialogues=(ehlo behaviour)
    [[ $help != *--connect\ * ]] || connects=(dial adopt)
    tools=("bare epoll client")
    local dialogue connect
    for dialogue in "${dialogues[@]:-ehlo}"; do
        for connect in "${connects[@]:-dial}"; do
            tools+=("smtpsweep $dialogue, $connect")
        done
    done
    if [[ ${ZGRAB2:-} ]]; then
        [[ -x $ZGRAB2 ]] || fail "ZGRAB2: no program at $ZGRAB2"
        tools+=(zgrab2)
    fi
    tools+=("masscan 10 kpps" "masscan 50 kpps" "nmap banner" "nmap smtp-commands")
}

# How many addresses a tool is given: the slow ones fewer, so that a round ends.
share_of() {
    case $1 in
    nmap*) printf '%s' $((addresses / 8)) ;;
    *) printf '%s' "$addresses" ;;
    esac
}

# span_of TOOL WALL: the seconds from its first session's start to its last one's end, or where it does
# not tell the whole run's, but for what masscan waits at its end for nothing.
span_of() {
    case $1 in
    bare*) awk '{ print $3 }' "$scratch/said" ;;
    smtpsweep*) sqlite3 "$scratch/survey.db" "SELECT
        (max(started_us + 1000 * duration_ms) - min(started_us)) / 1e6 FROM hosts" ;;
    masscan*) awk -v wall="$2" 'BEGIN { print wall - 2 }' ;;
    *) printf '%s' "$2" ;;
    esac
}

# command_of TOOL: fills the array `command`.
command_of() {
    local tool=$1 count space
    count=$(share_of "$tool")
    space=198.18.0.0/$((32 - $(log2 "$count")))
    case $tool in
    bare*) command=("$sessionbench" bare 198.18.0.0 "$count" 25 1000) ;;
    smtpsweep*)
        command=("$smtpsweep" scan "$space" --no-default-blocklist --max-sessions-per-24 256
            --rate 1000000 --cooldown-time 0.3 --ehlo-name scanner.example.org -q
            -o "$scratch/survey.db")
        local how=${tool#smtpsweep }
        ((${#dialogues[@]} == 0)) || command+=(--dialogue "${how%,*}")
        ((${#connects[@]} == 0)) || command+=(--connect "${how#*, }")
        ;;
    zgrab2)
        addresses_of "$count" >"$scratch/list"
        command=("$ZGRAB2" smtp --port 25 --senders 1000 --send-quit --input-file="$scratch/list"
            --output-file="$scratch/out" --flush)
        ;;
    masscan*)
        local rate=${tool#masscan }
        command=(masscan --adapter "$link" --adapter-ip "$scan_address" --router-mac "$gateway_mac"
            --adapter-port "$masscan_ports" -p25 --banners --rate "${rate%% *}000" --wait 2
            -oL "$scratch/out" "$space")
        ;;
    nmap*)
        command=(nmap -n -Pn -p25 -T5 --script "${tool#nmap }" -oG /dev/null
            -oN "$scratch/out" "$space")
        ;;
    *) fail "no such tool: $tool" ;;
    esac
}

# complete TOOL: how many hosts the tool has the whole of what it asks for.
complete() {
    case $1 in
    bare*) awk '{ print $1 }' "$scratch/said" ;;
    smtpsweep*) sqlite3 "$scratch/survey.db" "SELECT count(*) FROM hosts JOIN verdicts
        ON host_id = id WHERE outcome = 'completed' AND product = 'Postfix'" ;;
    zgrab2) grep -c '"ehlo":"250' "$scratch/out" ;;
    masscan*) awk '$1 == "banner" { print $4 }' "$scratch/out" | sort -u | wc -l ;;
    nmap\ banner) grep -c '^|_banner: 220' "$scratch/out" ;;
    nmap*) grep -c '^| smtp-commands:\|^|_smtp-commands:' "$scratch/out" ;;
    esac
}

forget() {
    rm -f "$scratch/out" "$scratch/said" "$scratch"/survey.db*
}

addresses_of() {
    awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++)
        printf "198.%d.%d.%d\n", 18 + int(i / 65536), int(i / 256) % 256, i % 256 }'
}

log2() {
    local n=$1 bits=0
    while ((n > 1)); do ((n /= 2, bits += 1)); done
    printf '%s' "$bits"
}
