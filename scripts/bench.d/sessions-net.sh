# shellcheck shell=bash
# The two namespaces of bench-sessions, sourced by it: NAME-scan with the client under test, NAME-net
# with a server that answers at every address of 198.18.0.0/15.
#
# Sourced with: name, sessionbench.
#
# - The gateway is a permanent neighbour, and queues of callers are as long as they may be.
# - Congestion control is Reno, which every kernel has and allows: BBR, some machines' default, paces
#   each connection by a timer of its own.
# - masscan speaks TCP itself: the kernel is kept from its ports. The other tools use the kernel's.

readonly scan=$name-scan net=$name-net link=sws0
readonly scan_address=10.200.0.2 gateway=10.200.0.1
readonly scan_mac=02:00:5e:10:00:01 gateway_mac=02:00:5e:10:00:02
readonly masscan_ports=61440-62463

net_up() {
    local space
    net_down
    for space in "$scan" "$net"; do
        ip netns add "$space"
        ip netns exec "$space" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 \
            net.core.somaxconn=1048576 net.ipv4.tcp_max_syn_backlog=1048576 \
            net.ipv4.tcp_syncookies=0 net.ipv4.tcp_congestion_control=reno
        ip -n "$space" link set lo up
    done
    ip link add "$link" netns "$scan" numtxqueues 2 numrxqueues 2 address "$scan_mac" type veth \
        peer name "$link" netns "$net" numtxqueues 2 numrxqueues 2 address "$gateway_mac"
    for space in "$scan" "$net"; do
        ip -n "$space" link set "$link" up
    done
    # After both are up: only then does each learn that the other takes XDP frames.
    for space in "$scan" "$net"; do
        ip netns exec "$space" ethtool -K "$link" gro on
    done
    ip -n "$scan" address add "$scan_address/30" dev "$link"
    ip -n "$net" address add "$gateway/30" dev "$link"
    ip -n "$scan" neighbour replace "$gateway" lladdr "$gateway_mac" nud permanent dev "$link"
    ip -n "$net" neighbour replace "$scan_address" lladdr "$scan_mac" nud permanent dev "$link"
    ip -n "$scan" route add 198.18.0.0/15 via "$gateway"
    ip -n "$net" route add local 198.18.0.0/15 dev lo
}

# shield on|off: keeps the kernel from the connections that masscan holds itself, or does not.
shield() {
    ip netns exec "$scan" nft flush ruleset
    [[ $1 == on ]] || return 0
    ip netns exec "$scan" nft -f - <<NFT
table ip bench {
    chain in {
        type filter hook prerouting priority raw
        tcp dport $masscan_ports drop
    }
}
NFT
}

net_down() {
    local space
    for space in "$scan" "$net"; do
        if [[ -e /run/netns/$space ]]; then
            ip netns delete "$space"
        fi
    done
}

server=''
# serve MODE…: a server of sessionbench's, in place of the one before.
serve() {
    unserve
    ip netns exec "$net" "$sessionbench" "$@" &
    server=$!
    # Until it listens on port 25 (0019).
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        ! ip netns exec "$net" grep -q ':0019 00000000:0000 0A' /proc/net/tcp || return 0
        sleep 0.05
    done
    fail "the server does not listen"
}

unserve() {
    if [[ $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=''
    fi
}

# CPU seconds that the server has used, in hundredths.
served_cpu() {
    # A name in parentheses stands before what is counted from here.
    local fields
    read -ra fields < <(sed 's/.*) //' "/proc/$server/stat")
    printf '%s' $((fields[11] + fields[12]))
}
