//! The text format that Prometheus had before `OpenMetrics`, which every scraper reads: made of the other, which is all that the library writes.

/// What differs: a counter's family has the name of its samples (`_total`), and there are no units and no end.
pub(super) fn text(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let total = if kind == "counter" { "_total" } else { "" };
            let said = help.take().map_or("", |(_, said)| said);
            out.extend(["# HELP ", name, total, " ", said, "\n# TYPE ", name, total, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([line, "\n"]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn counters_families_are_named_as_their_samples() {
        let open = "# HELP a_seconds Time.\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\na_seconds 1\n\
                    # HELP b Some b.\n# TYPE b counter\nb_total{c=\"# d\"} 2\n# EOF\n";
        let classic = "# HELP a_seconds Time.\n# TYPE a_seconds gauge\na_seconds 1\n\
                       # HELP b_total Some b.\n# TYPE b_total counter\nb_total{c=\"# d\"} 2\n";
        assert_eq!(super::text(open), classic);
    }
}
