//! Security dashboard: tokens, signing keys, revocations, certificates.

use super::every_process;
use crate::{
    dashboard::Dashboard,
    panel::{Panel, stacked_timeseries, timeseries, unit},
    query::{Query, metric},
};

pub(super) fn dashboard() -> Dashboard {
    let about = "Rejected tokens, signing keys of the issuers, revocations, certificates.";
    Dashboard::new("security", "Palisade / 10 Security", about)
        .row("Tokens", tokens())
        .optional_row("Issuers with a JWKS URL (HTTP client, if configured)", http_client())
        .optional_row("TLS certificates (if configured)", certificates())
}

fn rate_by_label(name: &str, label: &'static str) -> Query {
    metric(name).rate().sum_by(["job", label]).or_zero(&every_process())
}

fn tokens() -> [Panel; 4] {
    [
        timeseries("Rejected tokens / s")
            .description("Requests rejected by authentication, by service and reason.")
            .remediation("`unknown_key`, `keys_unavailable`, `unknown_issuer` for all users: the issuer or `auth.issuers` changed.")
            .unit(unit::REQUESTS)
            .runbook("AuthRejections")
            .query(metric("palisade.auth.rejections").rate().sum_by(["job", "reason"])),
        timeseries("Revoked tokens / s")
            .description("Requests rejected because their token is revoked.")
            .remediation("A client uses an outdated token, or a token was stolen.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.auth.tokens.revoked").rate().sum_by(["job"]).or_zero(&every_process())),
        timeseries("Revocation list reloads / s")
            .description("Reloads of the revocation list by outcome. During failures the old list stays in use.")
            .remediation("`failed`: tokens revoked since the last reload are still accepted.")
            .unit(unit::PER_SECOND)
            .query(rate_by_label("palisade.revocation_list.reloads", "outcome")),
        timeseries("JWKS refreshes / s")
            .description("JWKS refreshes by outcome. During failures the known keys stay in use.")
            .remediation("`failed`: tokens signed with new keys of that issuer are rejected. Its URL or file is wrong or unavailable.")
            .unit(unit::PER_SECOND)
            .query(rate_by_label("palisade.jwks.refreshes", "outcome")),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn http_client() -> [Panel; 2] {
    const ISSUERS: &str = "present only if an issuer's JWKS is fetched by URL";
    [
        stacked_timeseries("Outbound HTTP calls / s")
            .description("JWKS requests by server and status. Retries count as one call. No status means no response.")
            .remediation("5xx or no status: see JWKS refreshes. 3xx: redirects are not followed, correct the configured URL.")
            .unit(unit::REQUESTS)
            .query(
                metric("http.client.request.duration")
                    .count()
                    .rate()
                    .sum_by(["job", "server.address", "http.response.status_code", "error.type"])
                    .may_be_absent(ISSUERS),
            ),
        timeseries("Outbound HTTP attempt p99")
            .description("99th percentile of outbound HTTP attempts, first attempts and retries.")
            .remediation("Near 2 s: the issuer hangs. Requests with a token of an unknown key wait as long.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .query(
                metric("palisade.http.client.attempt.duration").quantile(0.99, ["job", "target", "attempt.type"]).may_be_absent(ISSUERS),
            ),
    ]
    .map(|panel| panel.sized(12, 8))
}

fn certificates() -> [Panel; 2] {
    [
        timeseries("Certificate expiry")
            .description("Time until each certificate expires: `server` certificate, or client certificate for the named upstream.")
            .remediation("Below two weeks: renew the certificate. New files are reloaded without a restart.")
            .unit(unit::SECONDS)
            .lowest_first()
            .query(
                (-1.0 * metric("palisade.tls.certificate.expiry").now().min_by(["job", "certificate"]).age())
                    .may_be_absent("absent on hops without TLS"),
            ),
        timeseries("Certificate reloads / s")
            .description("Reloads of changed certificates by outcome.")
            .remediation("`failed`: the old certificate stays in use until it expires. The log names the file.")
            .unit(unit::PER_SECOND)
            .query(rate_by_label("palisade.tls.reloads", "outcome")),
    ]
    .map(|panel| panel.sized(12, 8))
}
