# shellcheck shell=bash
# The two namespaces of bench-peers, sourced by it: NAME-scan with the tool under test, NAME-net with
# whoever answers.
#
# Sourced with: name, parts, scratch (when net_answer is called), fail.
#
# - The veth pair has two queues a direction, so that two sending threads need not share one.
# - Receive offload (GRO) is on at both ends: without it veth takes no XDP frames, and the receiver's
#   work would be done in the sender's system call.
# - The gateway is a permanent neighbour, so that no ARP is in anybody's way.
# - The scanner's kernel would answer each SYN-ACK with an RST, at the price of another packet each;
#   they are kept from it behind the packet taps, for all tools alike.

readonly scan=$name-scan net=$name-net link=sws0
readonly scan_address=198.18.0.2 gateway=198.18.0.1
readonly scan_mac=02:00:5e:10:00:01 gateway_mac=02:00:5e:10:00:02

net_up() {
    local space
    net_down
    for space in "$scan" "$net"; do
        ip netns add "$space"
        ip netns exec "$space" sysctl -qw net.ipv6.conf.all.disable_ipv6=1
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
    ip -n "$scan" route add 10.0.0.0/8 via "$gateway"
    ip -n "$net" route add local 10.0.0.0/8 dev lo
    ip netns exec "$scan" nft -f - <<NFT
table ip bench {
    chain in {
        type filter hook prerouting priority raw
        iifname "$link" tcp sport 25 drop
        iifname "$link" udp dport 9 drop
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

# A packet a second from the peer, which nobody asked for: masscan does not end before its receiver,
# and that looks up only when something comes.
waker=''
net_wake() {
    ip netns exec "$net" bash -c "while :; do echo >/dev/udp/$scan_address/9; sleep 1; done" &
    waker=$!
}

net_sleep() {
    if [[ $waker ]]; then
        kill "$waker" 2>/dev/null || true
        wait "$waker" 2>/dev/null || true
        waker=''
    fi
}

# What the peer does with SYNs so far.
net_clear() {
    ip -n "$net" link set "$link" xdp off
    # Without its program the end would be taken for one that takes no XDP frames.
    ip netns exec "$net" ethtool -K "$link" gro off
    ip netns exec "$net" ethtool -K "$link" gro on
    ip netns exec "$net" nft flush ruleset
}

# net_discard stack|xdp: the peer drops everything, in its stack or before it.
net_discard() {
    net_clear
    if [[ $1 == stack ]]; then
        ip netns exec "$net" nft -f - <<NFT
table netdev bench {
    chain in {
        type filter hook ingress device "$link" priority 0
        policy drop
    }
}
NFT
    else
        net_attach 0
    fi
}

# net_answer SHARE: of 65,536 addresses each, SHARE answer; the others' SYNs are dropped.
net_answer() {
    net_clear
    net_attach "$1"
}

net_attach() {
    local object=$scratch/answer-$1.o
    [[ -e $object ]] || bpf-gcc -O2 -DSHARE="$1" -c "$parts/answer.bpf.c" -o "$object"
    ip -n "$net" link set "$link" xdp obj "$object" sec xdp || fail "cannot load $object"
}
