# Medians and ranges of bench-sessions' results, as Markdown rows. Input: part, -, tool, numbers.

{
    if (!($3 in times)) order[++tools] = $3
    times[$3]++
    for (i = 4; i <= NF; i++) value[$3, i, times[$3]] = $i
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
    if (sorted[1] == sorted[n]) return sprintf(form, middle)
    return sprintf(form " (" form "–" form ")", middle, sorted[1], sorted[n])
}

END {
    for (t = 1; t <= tools; t++)
        printf "| %s | %s | %s | %s | %s | %s | %s |\n", order[t], spread(order[t], 4, "%.0f"),
            spread(order[t], 5, "%.0f"), spread(order[t], 6, "%.2f"), spread(order[t], 7, "%.0f"),
            spread(order[t], 8, "%.0f"), spread(order[t], 9, "%.2f")
}
