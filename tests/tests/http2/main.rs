//! HTTP/2 conformance of the three ports: cases of RFC 9113 and RFC 7541, each a script of raw
//! frames with the reaction that the RFC requires.

mod case;
mod cases;
mod connection;
mod deviations;
mod frames;
mod port;
mod windows;

use std::collections::BTreeSet;

use palisade_tests::Shop;

use crate::{deviations::DEVIATIONS, port::Port};

/// Health checks have a rate limit per address, which the cases may reach.
fn shop() -> Shop {
    Shop::all_in_one_with(|command| {
        for service in ["GATEWAY", "PRODUCTS", "ORDERS"] {
            command.env(format!("PALISADE_{service}__SERVER__ADDRESS_LIMIT__PUBLIC_PER_SECOND"), "0");
        }
    })
}

#[tokio::test]
async fn ports_conform_to_rfc_9113_and_rfc_7541() {
    let (shop, cases) = (shop(), cases::all());
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for port in Port::all(&shop) {
        for case in &cases {
            let outcome = connection::run(case, &port).await;
            let known = DEVIATIONS.iter().find(|known| known.case == case.name && known.ports.contains(&port.name));
            let conforms = case.expected.allows(outcome);
            if let Some(known) = known {
                seen.insert((known.case, port.name));
            }
            if conforms != known.is_none() || known.is_some_and(|known| known.outcome != outcome) {
                let listed = known.map(|known| known.outcome);
                findings.push(format!(
                    "{} §{} {}: {outcome:?}, expected {:?}, listed deviation {listed:?}",
                    port.name, case.section, case.name, case.expected
                ));
            }
            if !connection::is_serving(&port).await {
                findings.push(format!("{} §{} {}: the port does not serve afterwards", port.name, case.section, case.name));
            }
        }
    }
    let listed = DEVIATIONS.iter().flat_map(|known| known.ports.iter().map(|port| (known.case, *port)));
    findings.extend(listed.filter(|known| !seen.contains(known)).map(|known| format!("deviation of no case: {known:?}")));
    assert!(findings.is_empty(), "{} of {} cases:\n{}", findings.len(), 3 * cases.len(), findings.join("\n"));
}

#[tokio::test]
async fn ports_respect_windows_and_acknowledge() {
    let shop = shop();
    for port in Port::all(&shop) {
        windows::preface_starts_with_settings(&port).await;
        windows::ping_is_echoed_with_its_payload(&port).await;
        windows::each_settings_frame_is_acknowledged(&port).await;
        windows::data_stays_within_the_stream_window(&port).await;
        windows::window_may_become_negative(&port).await;
        windows::headers_ignore_a_closed_window(&port).await;
    }
}
