//! Parser of the Prometheus text format, as rendered by this process.

use std::borrow::Cow;

/// Names and values.
type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// Sample of a series.
#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
}

impl Sample<'_> {
    /// Returns the value of a label, empty if there is none.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// Returns the samples of `text`. Comments and malformed lines are left out.
pub(super) fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    Some(Sample { name, labels, value: value.trim().parse().ok()? })
}

/// Parses `name="value",…}` and returns the rest of the line.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(value) = rest.strip_prefix('}') {
            return Some((labels, value));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = value(quoted)?;
        labels.push((name, value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// Splits a label value from the rest after its closing quote.
fn value(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut escaped = false;
    let end = quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    let (text, rest) = (&quoted[..end], &quoted[end + 1..]);
    if !text.contains('\\') {
        return Some((text.into(), rest));
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => plain.extend(characters.next().map(|next| if next == 'n' { '\n' } else { next })),
            (character, false) => plain.push(character),
        }
    }
    Some((plain.into(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_parsed() {
        let text = "# HELP up A comment\nup 1\nq{le=\"0.5\",route=\"/a/{id}\"} 2.5\nodd{v=\"a\\\"b\\\\,}\\n\"} NaN\nbroken{x=\"1\n\n";
        let parsed: Vec<_> = samples(text).collect();
        assert_eq!(parsed[0], Sample { name: "up", labels: Vec::new(), value: 1.0 });
        assert_eq!((parsed[1].label("le"), parsed[1].label("route"), parsed[1].value), ("0.5", "/a/{id}", 2.5));
        assert_eq!(parsed[2].label("v"), "a\"b\\,}\n");
        assert!(parsed[2].value.is_nan() && parsed[2].label("none").is_empty());
        assert_eq!(parsed.len(), 3);
    }
}
