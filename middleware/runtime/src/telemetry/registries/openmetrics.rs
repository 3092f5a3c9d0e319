//! Conversion of the Prometheus text format to OpenMetrics 1.0, which has exemplars.

use std::collections::HashSet;

/// Converts `text`. `complete` may append an exemplar to the line of a sample.
pub(super) fn convert(text: &str, complete: impl Fn(&mut String)) -> String {
    let counters: HashSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut converted = String::with_capacity(text.len() + text.len() / 8);
    let mut sample = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match family(line) {
            // The family of a counter has no suffix, only its samples.
            Some((keyword, name, rest)) if counters.contains(name) => {
                let family = name.strip_suffix("_total").unwrap_or(name);
                converted.extend([keyword, family, " ", rest]);
            }
            Some(_) => converted.push_str(line),
            None => {
                sample.clear();
                sample.push_str(line);
                complete(&mut sample);
                converted.push_str(&sample);
            }
        }
        converted.push('\n');
    }
    converted.push_str("# EOF\n");
    converted
}

/// Splits the description of a family into keyword, name and the rest.
fn family(line: &str) -> Option<(&str, &str, &str)> {
    let keyword = ["# HELP ", "# TYPE "].into_iter().find(|keyword| line.starts_with(keyword))?;
    let (name, rest) = line[keyword.len()..].split_once(' ')?;
    Some((keyword, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_converted_to_openmetrics() {
        let text = "# HELP calls_total Calls\n# TYPE calls_total counter\ncalls_total{to=\"a\"} 1\n\n# TYPE up gauge\nup 1\n\n";
        let complete = |line: &mut String| {
            if line.starts_with("up") {
                line.push_str(" # {}");
            }
        };
        let expected = "# HELP calls Calls\n# TYPE calls counter\ncalls_total{to=\"a\"} 1\n# TYPE up gauge\nup 1 # {}\n# EOF\n";
        assert_eq!(convert(text, complete), expected);
    }
}
