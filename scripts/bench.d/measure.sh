# shellcheck shell=bash
# Measuring and printing, sourced by bench-peers.
#
# Sourced with: scan, link, scratch, results, prefix, range, addresses, seconds, command_of, found.
#
# A line of results: part, case, tool, then numbers, all separated by tabs:
#   sending  Mpps, packets per CPU second in millions, CPU seconds, KiB of memory
#   sweep    seconds, found %, delivered %, CPU µs per probe, KiB of memory, Mpps

# No run takes longer, whatever its tool does.
readonly time_limit=45
child=''

stop_measuring() {
    if [[ $child ]]; then
        kill -- "-$child" 2>/dev/null || true
        child=''
    fi
    net_sleep
}

# In the scanner's namespace: runs a command, sampling the interface's counters every 10 ms into
# $scratch/samples (seconds, packets out, packets in, since the start). A pipe that never has
# anything makes `read` a sleep without a process of its own.
# shellcheck disable=SC2016 # expanded by the shell that runs it
readonly sampler='
    folder=/sys/class/net/$1/statistics scratch=$2 limit=$3
    shift 3
    exec {never}<> <(:)
    look() {
        read -r sent <"$folder/tx_packets"
        read -r came <"$folder/rx_packets"
        printf "%s %s %s\n" "$EPOCHREALTIME" $((sent - sent0)) $((came - came0))
    }
    read -r sent0 <"$folder/tx_packets"
    read -r came0 <"$folder/rx_packets"
    look >"$scratch/samples"
    command time -q -o "$scratch/time" -f "%e %U %S %M" timeout --foreground "$limit" "$@" \
        >"$scratch/said" 2>&1 &
    while kill -0 $! 2>/dev/null; do
        look
        read -rt 0.01 -u "$never"
    done >>"$scratch/samples"
    look >>"$scratch/samples"
    wait $!'

# run_sampled COMMAND…: prints the tool's exit code.
run_sampled() {
    local code=0
    set -m
    # shellcheck disable=SC2086 # the prefix is several words
    $prefix ip netns exec "$scan" bash -c "$sampler" sampler "$link" "$scratch" "$time_limit" "$@" &
    child=$!
    set +m
    [[ $1 != masscan ]] || net_wake
    wait "$child" || code=$?
    child=''
    net_sleep
    # 3: smtpsweep was stopped by its time limit, as asked.
    ((code == 0 || code == 3)) ||
        fail "${command[0]} ended with $code: $(tail -n 3 "$scratch/said")"
}

# Packets out in a second between the first twentieth and the last, in millions. How a tool starts
# and waits is not in it.
pps() {
    awk '{ t[NR] = $1; n[NR] = $2 }
        END {
            all = n[NR]; first = 1; last = NR
            for (i = 1; i <= NR; i++) if (n[i] <= all * 0.05) first = i
            for (i = NR; i >= 1; i--) if (n[i] >= all * 0.95) last = i
            printf "%.4f", (last > first ? (n[last] - n[first]) / (t[last] - t[first]) / 1e6 : 0)
        }' "$scratch/samples"
}

measure_sending() {
    local peer=$1 tool=$2 command
    # masscan knows no time limit: it gets a space of some seconds.
    local targets=10.0.0.0/8 wall user system memory
    [[ $tool != masscan ]] || targets=10.0.0.0/$((seconds > 1 ? 11 : 12))
    command_of "$tool" "$targets" max "$seconds" 0
    run_sampled "${command[@]}"
    read -r wall user system memory < <(tail -n 1 "$scratch/time")
    printf 'sending\t%s\t%s\t%s\t%s\n' "$peer" "$tool" "$(pps)" "$(
        tail -n 1 "$scratch/samples" | awk -v cpu="$user $system" -v memory="$memory" '{
            split(cpu, part, " "); used = part[1] + part[2]
            printf "%.4f\t%.2f\t%d", (used ? $2 / used / 1e6 : 0), used, memory
        }'
    )" >>"$results"
    : "$wall"
    forget_found
}

measure_sweep() {
    local case=$1 tool=$2 rate=$3 share=$4 command wall user system memory hosts
    command_of "$tool" "$range" "$rate" 0 2
    run_sampled "${command[@]}"
    read -r wall user system memory < <(tail -n 1 "$scratch/time")
    hosts=$(found "$tool")
    printf '%s\t%s\t%s\t%s\t%s\n' "${case%% *}" "${case#* }" "$tool" "$wall" "$(
        tail -n 1 "$scratch/samples" | awk -v cpu="$user $system" -v memory="$memory" \
            -v hosts="$hosts" -v there=$((addresses / 65536 * share)) -v pps="$(pps)" '{
            split(cpu, part, " "); used = part[1] + part[2]
            printf "%.3f\t%.3f\t%.3f\t%d\t%s", (there ? 100 * hosts / there : 100),
                (there ? 100 * $3 / there : 100), ($2 ? used / $2 * 1e6 : 0), memory, pps
        }'
    )" >>"$results"
    forget_found
}

print_tables() {
    printf 'Measured on %s, Linux %s, %s; medians of %s rounds (range).\n' "$(
        awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo
    )" "$(uname -r)" "$(nproc) cores" "$(
        awk -F'\t' '{ n = ++times[$1, $2, $3]; if (n > most) most = n } END { print most + 0 }' "$results"
    )"
    printf '%s; %s; %s' "$(zmap --config=/dev/null --version 2>/dev/null)" \
        "$(masscan --version 2>&1 | awk 'NF { print "masscan", $3; exit }')" \
        "$("$smtpsweep" --version)"
    [[ ! ${ZMAP:-} ]] || printf '; zmap new: %s' "$("$ZMAP" --config=/dev/null --version 2>/dev/null)"
    printf '.\n'
    awk -F'\t' -v space="$range" -f "$parts/tables.awk" "$results"
}
