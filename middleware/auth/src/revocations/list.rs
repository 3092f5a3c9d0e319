//! Parsed revocation list.

use std::collections::{HashMap, HashSet};

use crate::Principal;

/// Revoked tokens and subjects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RevocationList {
    tokens: HashSet<String>,
    /// Cutoff per subject, seconds since 1970: tokens issued earlier are revoked.
    subjects: HashMap<String, i64>,
}

impl RevocationList {
    /// Parses `text`. Returns the list and the numbers of invalid lines.
    pub(super) fn parse(text: &str) -> (Self, Vec<usize>) {
        let (mut list, mut bad) = (Self::default(), Vec::new());
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if !line.is_empty() && !line.starts_with('#') && list.add(line).is_none() {
                bad.push(number);
            }
        }
        (list, bad)
    }

    /// Adds one line. Returns `None` if it is invalid.
    fn add(&mut self, line: &str) -> Option<()> {
        let (kind, value) = split_first_word(line)?;
        match kind {
            "jti" => {
                self.tokens.insert(value.to_owned());
            }
            "sub" => self.revoke_before(value, i64::MAX),
            "sub-before" => {
                let (before, subject) = split_first_word(value)?;
                self.revoke_before(subject, before.parse().ok()?);
            }
            _ => return None,
        }
        Some(())
    }

    /// Revokes tokens of `subject` issued before `before`. The latest cutoff per subject wins.
    fn revoke_before(&mut self, subject: &str, before: i64) {
        let cutoff = self.subjects.entry(subject.to_owned()).or_insert(before);
        *cutoff = before.max(*cutoff);
    }

    /// Returns whether the token of `principal` is revoked.
    pub(super) fn contains(&self, principal: &Principal) -> bool {
        let token = principal.token_id.as_ref().is_some_and(|id| self.tokens.contains(id));
        // A token without `iat` may predate any cutoff, also the earliest.
        let is_before = |cutoff: i64| cutoff == i64::MAX || principal.issued_at.is_none_or(|issued| issued < cutoff);
        token || self.subjects.get(principal.subject.as_str()).is_some_and(|cutoff| is_before(*cutoff))
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() + self.subjects.len()
    }
}

/// Splits off the first word. Returns `None` if nothing follows.
fn split_first_word(text: &str) -> Option<(&str, &str)> {
    text.split_once([' ', '\t']).map(|(word, rest)| (word, rest.trim_start())).filter(|(_, rest)| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(subject: &'static str, token_id: Option<&str>, issued_at: Option<i64>) -> Principal {
        let mut principal = Principal::on_behalf_of(subject);
        principal.token_id = token_id.map(str::to_owned);
        principal.issued_at = issued_at;
        principal
    }

    #[test]
    fn list_matches_each_kind_of_entry() {
        let text = "# left\n\n  sub mallory \njti\t7\nsub-before 100 alice\r\nsub-before 50 alice\nsub two words\n";
        let (list, bad) = RevocationList::parse(text);
        assert_eq!(bad, Vec::<usize>::new());
        for (subject, token, issued, revoked) in [
            ("mallory", None, Some(i64::MAX), true),
            ("Mallory", None, None, false),
            ("bob", Some("7"), None, true),
            ("bob", Some("77"), None, false),
            ("7", None, None, false),
            ("bob", Some("mallory"), None, false),
            ("alice", None, Some(99), true),
            ("alice", None, Some(100), false),
            ("alice", None, None, true),
            ("two words", None, None, true),
        ] {
            assert_eq!(list.contains(&principal(subject, token, issued)), revoked, "{subject} {token:?} {issued:?}");
        }
    }

    #[test]
    fn earliest_cutoff_revokes_tokens_without_a_date() {
        let (list, _) = RevocationList::parse(&format!("sub-before {} alice\n", i64::MIN));
        assert!(list.contains(&principal("alice", None, None)) && !list.contains(&principal("alice", None, Some(i64::MIN))));
    }

    #[test]
    fn list_reports_invalid_lines_and_keeps_others() {
        let (list, bad) = RevocationList::parse("mallory\njti\nsub \nsub-before soon alice\nsub-before 5\nJTI 7\njti 8\n");
        assert_eq!(bad, [1, 2, 3, 4, 5, 6]);
        assert!(list.contains(&principal("x", Some("8"), None)));
        assert_eq!(list.len(), 1);
    }
}
