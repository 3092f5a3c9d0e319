//! Tokens, key sets and revocation lists.

use std::{cell::RefCell, io::Write, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use palisade_auth::{
    Issuer, Principal, RevocationError, RevocationFile, Revocations, Subject, UserToken, Verifier,
    jwks::JwksSource,
    keys::{SigningKey, TrustedKey},
    mint_user_token,
};
use palisade_middleware::clock::ManualClock;
use serde_json::Value;
use sha2::Sha256;
use tempfile::NamedTempFile;
use time::OffsetDateTime;

use crate::targets::deadlines::block_on;

const NOW: i64 = 1_767_225_600;
/// As [`NOW`], as JSON has it.
const NOW_SECONDS: f64 = 1_767_225_600.0;
/// Tolerated clock difference, and one second for the rest of a fraction.
const LEEWAY: f64 = 31.0;
const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "palisade";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A key of these tests only.
const PEM: &str =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

fn verifier(key: TrustedKey) -> Arc<Verifier> {
    let clock = ManualClock::new(OffsetDateTime::from_unix_timestamp(NOW).unwrap());
    let issuer = Issuer::of_users(ISSUER, AUDIENCE, JwksSource::fixed(vec![key]));
    Arc::new(Verifier::new(vec![issuer], Arc::new(clock)).unwrap())
}

fn signing_key() -> SigningKey {
    SigningKey::from_pem(&PEM.into()).unwrap()
}

thread_local! {
    static ED25519: Arc<Verifier> = verifier(signing_key().trusted().unwrap());
    static HS256: Arc<Verifier> = verifier(TrustedKey::from_secret(&SECRET.into()).unwrap());
    static MINTED: String = {
        let token = UserToken {
            subject: "alice".to_owned(),
            scope: "orders:read".to_owned(),
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            lifetime: Duration::from_hours(1),
        };
        mint_user_token(&token, &signing_key(), NOW).unwrap()
    };
}

/// The input is a position in a valid token and the text that replaces the rest from there; or,
/// from position 0, a whole token. Only the signed text with its signature is accepted.
pub(crate) fn jwt(input: &[u8]) {
    let mut bytes = crate::targets::input::Input::new(input);
    let at = usize::from(bytes.u16());
    let Ok(text) = std::str::from_utf8(bytes.rest()) else { return };
    let minted = MINTED.with(Clone::clone);
    let token = format!("{}{text}", &minted[..at.min(minted.len())]);
    let accepted = ED25519.with(|verifier| block_on(verifier.verify(&token)));
    if let Ok(principal) = accepted {
        assert_eq!(token, minted, "another token is accepted");
        assert_eq!(principal.subject.as_str(), "alice");
    } else {
        assert_ne!(token, minted);
    }
}

/// Header and claims are signed, so only their rules protect the service.
pub(crate) fn signed_claims(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    let Ok(principal) = HS256.with(|verifier| block_on(verifier.verify(&token))) else { return };

    for json in [header, claims] {
        let text = std::str::from_utf8(json).expect("only UTF-8 is accepted");
        assert!(text.trim_ascii_start().starts_with('{'), "only objects are accepted");
    }
    // A claim that the service ignores may be a number that this reader cannot hold.
    let object = |json: &[u8]| serde_json::from_slice::<Value>(json);
    let (Ok(header), Ok(claims)) = (object(header), object(claims)) else { return };
    assert_eq!(header["alg"], "HS256");
    for name in ["crit", "jku", "x5u", "jwk", "x5c", "b64", "enc", "zip"] {
        assert!(header.get(name).is_none(), "{name}");
    }
    let typ = header["typ"].as_str().expect("a type is required").to_ascii_lowercase();
    assert!(["jwt", "at+jwt", "application/at+jwt"].contains(&typ.as_str()), "{typ}");
    assert_eq!(claims["iss"], ISSUER);
    let has_audience = claims["aud"] == AUDIENCE || claims["aud"].as_array().is_some_and(|all| all.iter().any(|one| one == AUDIENCE));
    assert!(has_audience, "{claims}");
    let seconds = |name: &str| claims.get(name).map(|date| date.as_f64().expect("dates are numbers"));
    let leeway = |name: &str, is_valid: fn(f64) -> bool| seconds(name).is_none_or(is_valid);
    assert!(seconds("exp").expect("an expiry is required") > NOW_SECONDS - LEEWAY, "{claims}");
    assert!(leeway("nbf", |at| at < NOW_SECONDS + LEEWAY) && leeway("iat", |at| at < NOW_SECONDS + LEEWAY), "{claims}");
    let subject = claims["sub"].as_str().expect("a subject is required");
    assert_eq!(Subject::of_issuer("", subject).as_ref(), Ok(&principal.subject));
    assert_eq!(principal.actor, None, "only internal tokens have an actor");
    let granted: Vec<_> = [&claims["scope"], &claims["scp"]].into_iter().flat_map(words).collect();
    assert!(principal.scopes.iter().all(|scope| granted.contains(scope)) && granted.iter().all(|scope| principal.has_scope(scope)));
    assert!(!claims["scope"].is_array());
}

fn words(claim: &Value) -> Vec<String> {
    let texts = claim.as_array().map_or_else(|| vec![claim.clone()], Clone::clone);
    let words = texts.iter().filter_map(Value::as_str).flat_map(|text| text.split(' '));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A set is accepted if it is JSON with an array of keys. It yields no more keys than it has, and
/// never a secret.
pub(crate) fn jwks(input: &[u8]) {
    let Ok(keys) = TrustedKey::from_jwks(input) else { return };
    let set: Value = serde_json::from_slice(input).unwrap();
    assert!((1..=set["keys"].as_array().unwrap().len()).contains(&keys.len()), "{set}");
    assert!(!keys.iter().any(|key| format!("{key:?}").contains("HS256")));
}

thread_local! {
    static FILE: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::new_in("/dev/shm").or_else(|_| NamedTempFile::new()).unwrap());
}

/// Each line is an entry, a comment, or an error with its number.
pub(crate) fn revocations(input: &[u8]) {
    let path = FILE.with_borrow_mut(|file| {
        file.as_file().set_len(0).unwrap();
        std::io::Seek::rewind(file.as_file_mut()).unwrap();
        file.as_file_mut().write_all(input).unwrap();
        file.path().to_owned()
    });
    let opened = RevocationFile::open(path);
    let Ok(text) = std::str::from_utf8(input) else {
        assert!(matches!(opened, Err(RevocationError::Unreadable(..))));
        return;
    };
    let entries: Vec<(usize, Vec<&str>)> = (1..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| (number, line.splitn(2, [' ', '\t']).map(str::trim_start).collect()))
        .collect();
    let before = |value: &str| -> Option<(i64, String)> {
        let (seconds, subject) = value.split_once([' ', '\t'])?;
        Some((seconds.parse().ok()?, subject.trim_start().to_owned()))
    };
    let is_valid = |entry: &[&str]| match entry {
        ["jti" | "sub", value] => !value.is_empty(),
        ["sub-before", value] => before(value).is_some_and(|(_, subject)| !subject.is_empty()),
        _ => false,
    };
    let invalid: Vec<_> = entries.iter().filter(|(_, entry)| !is_valid(entry)).map(|(number, _)| *number).collect();
    let list = match opened {
        Err(RevocationError::Lines(_, lines)) => {
            assert_eq!(lines, invalid);
            return;
        }
        opened => opened.unwrap(),
    };
    assert_eq!(invalid, Vec::<usize>::new());
    for (_, entry) in &entries {
        let (mut principal, value) = (Principal::on_behalf_of(Subject::parse("other").unwrap()), entry[1]);
        match entry[0] {
            "jti" => principal.token_id = Some(value.to_owned()),
            "sub" => {
                let Ok(subject) = Subject::parse(value) else { continue };
                principal.subject = subject;
                principal.issued_at = Some(i64::MAX);
            }
            _ => {
                let (seconds, subject) = before(value).unwrap();
                let Ok(subject) = Subject::parse(&subject) else { continue };
                principal.subject = subject;
                principal.issued_at = seconds.checked_sub(1);
            }
        }
        assert!(list.is_revoked(&principal), "{entry:?}");
        principal.actor = Some("orders".to_owned());
        assert!(!list.is_revoked(&principal), "internal tokens are exempt");
    }
    let is_listed = entries.iter().any(|(_, entry)| entry[1].contains("unlisted"));
    let unlisted = Principal::on_behalf_of(Subject::parse("unlisted").unwrap());
    assert!(is_listed || !list.is_revoked(&unlisted));
}
