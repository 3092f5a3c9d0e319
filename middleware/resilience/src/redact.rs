//! Removal of secrets from text that people read: logs, errors, metric labels.
//!
//! Two rules, because neither finds everything. Credentials of URLs are found by their form, in any
//! text. The values of secret settings are registered and found wherever a library repeats them.

use std::{borrow::Cow, sync::RwLock};

/// Replacement of a secret.
const REDACTED: &str = "[redacted]";
/// Shortest secret that is searched for, bytes. A shorter one would hide parts of ordinary words.
const MIN_SECRET_BYTES: usize = 4;

/// Registered secrets, in each spelling in which a library may print them; the longest first.
static SECRETS: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Names of query parameters with a secret contain one of these, in lower case.
const SECRET_PARAMETERS: [&str; 5] = ["password", "passwd", "token", "secret", "apikey"];

/// Registers a secret, such as the value of a secret setting. From now on [`text`] removes it. Of a
/// URL only the credentials are secret, before the host or in the query.
pub fn register(secret: &str) {
    if secret.contains("://") {
        secret.split(',').filter_map(credentials).for_each(|(user, password)| {
            // A token may stand in the place of the user.
            add(password.unwrap_or(user));
        });
        secret_parameters(secret).for_each(add);
    } else {
        add(secret);
    }
}

/// Returns `text` without registered secrets and without the credentials of URLs.
pub fn text(text: &str) -> Cow<'_, str> {
    let mut text = url_credentials(text);
    let Ok(secrets) = SECRETS.read() else { return text };
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), REDACTED).into();
        }
    }
    text
}

/// Replaces the credentials of every URL in `text`: all between `://` and the last `@` of the word.
/// A list of URLs loses its other members, because their passwords may contain any delimiter.
pub fn url_credentials(text: &str) -> Cow<'_, str> {
    let mut redacted = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let word = &after[..after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(after.len())];
        let Some(at) = word.rfind('@') else {
            redacted.push_str(&rest[..before.len() + 3]);
            rest = after;
            continue;
        };
        redacted.push_str(before);
        redacted.push_str("://");
        redacted.push_str(REDACTED);
        rest = &after[at..];
    }
    if redacted.is_empty() {
        return text.into();
    }
    redacted.push_str(rest);
    redacted.into()
}

/// Returns the user and the password of a URL. They extend to the last `@` before the path.
fn credentials(url: &str) -> Option<(&str, Option<&str>)> {
    let (_, rest) = url.split_once("://")?;
    let (credentials, _) = rest.rsplit_once('@')?;
    Some(credentials.split_once(':').map_or((credentials, None), |(user, password)| (user, Some(password))))
}

/// Returns the values of the query parameters that hold a secret, such as `password` of PostgreSQL.
fn secret_parameters(url: &str) -> impl Iterator<Item = &str> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    query.split(['&', ';']).filter_map(|pair| pair.split_once('=')).filter_map(|(name, value)| {
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        SECRET_PARAMETERS.iter().any(|secret| name.contains(secret)).then_some(value)
    })
}

fn add(secret: &str) {
    let escaped = serde_json::to_string(secret).unwrap_or_default();
    let spellings = [secret.to_owned(), percent_decoded(secret), escaped.trim_matches('"').to_owned()];
    let Ok(mut secrets) = SECRETS.write() else { return };
    for spelling in spellings {
        if spelling.len() >= MIN_SECRET_BYTES && !secrets.contains(&spelling) {
            secrets.push(spelling);
        }
    }
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
}

/// Decodes the percent-encoding of a part of a URL (RFC 3986).
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |index: usize| after.get(index).and_then(|digit| char::from(*digit).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_urls_are_removed() {
        for (text, expected) in [
            ("no url, a@b", "no url, a@b"),
            ("see http://host:80/path", "see http://host:80/path"),
            ("nats://u:PASS@host:4222 is down", "nats://[redacted]@host:4222 is down"),
            ("postgres://app:p@ss/w,rd@db/orders?x=1", "postgres://[redacted]@db/orders?x=1"),
            ("\"redis://:secret@r\" and 'http://a'", "\"redis://[redacted]@r\" and 'http://a'"),
            ("nats://a:1,nats://u:p@b:2", "nats://[redacted]@b:2"),
            ("http://a and http://token@b", "http://a and http://[redacted]@b"),
        ] {
            assert_eq!(url_credentials(text), expected);
        }
    }

    #[test]
    fn registered_secrets_are_removed_in_each_spelling() {
        register("86753091234");
        register("quo\"ted\\secret");
        register("mongodb://app:p%40ssw0rd-7@one,two:27017/db");
        register("nats://token-of-nats@host");
        register("postgres://db/orders?user=orders-app&password=s3cret%2B1&application_name=shop");
        register("https://id.example/jwks?API-key=k-0123456&access_token=t-0123456#part");
        register("abc");
        let shown = |shown: &str| text(shown).into_owned();
        assert_eq!(shown("key 86753091234, twice 86753091234"), "key [redacted], twice [redacted]");
        assert_eq!(shown("{\"secret\":\"quo\\\"ted\\\\secret\"}"), "{\"secret\":\"[redacted]\"}");
        assert_eq!(shown("password: Some(\"p@ssw0rd-7\") or p%40ssw0rd-7"), "password: Some(\"[redacted]\") or [redacted]");
        assert_eq!(shown("orders-app of shop: s3cret%2B1 is s3cret+1"), "orders-app of shop: [redacted] is [redacted]");
        assert_eq!(shown("k-0123456, t-0123456, part"), "[redacted], [redacted], part");
        assert_eq!(shown("token-of-nats of app at host, abc"), "[redacted] of app at host, abc");
    }
}
