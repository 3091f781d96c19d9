# shellcheck shell=bash
# truth.sh: which address of the test internet does what, and the nftables ruleset
# that makes it so. Sourced by scripts/testnet, which sets: link, parts.

: "${link:?}" "${parts:?}"

# nftables' names of the ICMP errors it can send, with their codes.
readonly icmp_kinds="net-unreachable:0 host-unreachable:1 prot-unreachable:2 port-unreachable:3
  net-prohibited:9 host-prohibited:10 admin-prohibited:13"

# make_truth BASE BITS SEED SMTP ODD RESET ICMP SERVERS PEERS, the last
# two as words NAME:NUMBER:OUTCOME.
# The host part of the i-th address is a bijection of i (multiply, add, swap the
# halves, four times), so no address is chosen twice and the same seed always
# gives the same list, in any awk: all intermediate values stay below 2^53.
make_truth() {
    awk -v base="$1" -v bits="$2" -v seed="$3" -v smtp="$4" -v odd="$5" -v reset="$6" \
        -v icmp="$7" -v servers="$8" -v peers="$9" -v errors="$icmp_kinds" '
    function shuffled(x,    round) {
        for (round = 0; round < 4; round++) {
            x = (x * factor[round] + addend[round]) % size
            x = (x % low) * high + int(x / low)
        }
        return x
    }
    function random() { state = (state * 1664525 + 1013904223) % 4294967296; return state }
    # The next COUNT addresses, shared equally by the things in LIST and rounded up to
    # do so; LIST is "name:number:outcome …".
    function emit(count, kind, list,    things, n, each, i, part, x) {
        n = split(list, things, " ")
        if (n == 0 || count == 0) return
        each = int(count / n)
        if (each * n < count) each++
        count = each * n
        for (i = 0; i < count; i++) {
            split(things[i % n + 1], part, ":")
            if (next_index >= size) { print "testnet: the shares exceed the space" > "/dev/stderr"; exit 1 }
            x = shuffled(next_index++)
            printf "%d.%d.%d.%d\t%s\t%s\t%d\t%s\n", octet[1] + int(x / 65536 / 256), \
                (octet[2] + int(x / 65536)) % 256, octet[3] + int(x / 256) % 256, \
                octet[4] + x % 256, kind, part[1], part[2], part[3] == "" ? "-" : part[3]
        }
    }
    BEGIN {
        split(base, octet, ".")
        size = 2 ^ bits; low = 2 ^ int(bits / 2); high = size / low
        state = seed
        for (round = 0; round < 4; round++) {
            random(); factor[round] = 2 * int(random() / 1024) + 1
            addend[round] = random() % size
        }
        emit(size * smtp / 100, "smtp", servers)
        emit(size * odd / 100, "odd", peers)
        emit(size * icmp / 100, "icmp", errors)
        emit(size * reset / 100, "reset", "reset:0")
    }' | sort -t. -k1,1n -k2,2n -k3,3n -k4,4n
}

# The nftables ruleset: the template, then the two maps' elements from truth.tsv.
make_ruleset() {
    sed "s|@LINK@|$link|g" "$parts/internet.nft"
    awk -F'\t' '
    {
        verdict = $2 == "icmp" ? "goto " $3 : $2 == "reset" ? "goto refuse" : "accept"
        print "add element ip internet fate { " $1 " : " verdict " }"
        if (verdict == "accept") print "add element ip internet port { " $1 " : " $4 " }"
    }' "$1"
}
