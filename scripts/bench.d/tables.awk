# Medians and ranges of bench-peers' results, as Markdown. Input: see measure.sh.

{
    key = $1 SUBSEP $2 SUBSEP $3
    if (!(key in times)) order[++keys] = key
    times[key]++
    for (i = 4; i <= NF; i++) value[key, i, times[key]] = $i
}

# "median (lowest–highest)" of column i, printed with `form`.
function spread(key, i, form,    n, j, k, sorted, x, middle) {
    n = times[key]
    for (j = 1; j <= n; j++) {
        x = value[key, i, j] + 0
        for (k = j - 1; k >= 1 && sorted[k] > x; k--) sorted[k + 1] = sorted[k]
        sorted[k + 1] = x
    }
    middle = n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
    if (n == 1) return sprintf(form, middle)
    return sprintf(form " (" form "–" form ")", middle, sorted[1], sorted[n])
}

function heading(part, which) {
    if (part == "sending") {
        print "\n### Sending, the peer drops " (which == "xdp" ? "in XDP" : "in its stack") "\n"
        print "| tool | Mpps | million SYNs per CPU second |\n|---|---|---|"
        return
    }
    if (part == "sweep") {
        share = which == 65536 ? "all answer" : which == 0 ? "none answers" \
            : sprintf("%.2f %% answer", which / 655.36)
        print "\n### Sweep of " space " at full speed, " share "\n"
    } else {
        print "\n### Loss against the rate, sweep of " space ", all answer\n"
    }
    print (part == "loss" ? "| SYNs/s asked for " : "") "| tool | seconds, 2 of them waiting | found, % | answers that arrived, % | Mpps " \
        "| CPU µs per probe | memory, MB |\n" (part == "loss" ? "|---" : "") "|---|---|---|---|---|---|---|"
}

END {
    count = split("sending sweep loss", part, " ")
    for (p = 1; p <= count; p++) {
        last = ""
        # Rounds come one after the other: every case is complete in the order of the first.
        for (k = 1; k <= keys; k++) {
            split(order[k], name, SUBSEP)
            if (name[1] != part[p]) continue
            if (part[p] == "loss" ? !last : name[2] != last) heading(part[p], last = name[2])
            if (part[p] == "loss") printf "| %d ", name[2]
            if (part[p] == "sending")
                printf "| %s | %s | %s |\n", name[3], spread(order[k], 4, "%.2f"),
                    spread(order[k], 5, "%.2f")
            else
                printf "| %s | %s | %s | %s | %s | %s | %s |\n", name[3],
                    spread(order[k], 4, "%.1f"), spread(order[k], 5, "%.2f"),
                    spread(order[k], 6, "%.2f"), spread(order[k], 9, "%.2f"),
                    spread(order[k], 7, "%.2f"), megabytes(order[k])
        }
    }
}

function megabytes(key,    j) {
    for (j = 1; j <= times[key]; j++) value[key, 8, j] = value[key, 8, j] / 1024
    return spread(key, 8, "%.0f")
}
