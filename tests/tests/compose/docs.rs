//! Output of `make up`: published addresses and the token command.

use std::collections::BTreeSet;

use palisade_tests::files::{read, repository};

use crate::stack::{published, service};

#[test]
fn printed_addresses_are_published() {
    let makefile = read(&repository().join("Makefile"));
    assert!(makefile.contains("\n\t@cat compose/up.txt\n"), "make up must print compose/up.txt");
    let words = read(&repository().join("compose/up.txt"));
    let addresses = words.split("http://localhost:").skip(1).map(|rest| {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().unwrap()
    });
    let mut printed: BTreeSet<u16> = addresses.collect();
    // The ports of the collector (OTLP, log records) have no page to visit.
    printed.extend([4317, 4318, 24224]);
    assert_eq!(printed, published());
}

#[test]
fn token_command_uses_operator_key_container() {
    let words = read(&repository().join("compose/up.txt"));
    assert!(words.contains("$(docker compose --file compose/compose.yaml run --rm -T keys"), "{words}");
    let keys = service("keys");
    assert!(words.contains("--key-file /keys/operator/key.pem"), "{words}");
    assert!(keys.mounts().iter().any(|mount| mount.target == "/keys/operator"));
}
