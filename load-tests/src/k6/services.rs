//! Metrics of the services before and after a run: the same run, measured at the server.

use std::{collections::BTreeMap, fmt::Write};

use crate::remote_write::get;

/// Settings with the admin ports.
const ADMIN_PORTS: [(&str, &str); 3] = [("gateway", "GATEWAY_ADMIN"), ("products", "PRODUCTS_ADMIN"), ("orders", "ORDERS_ADMIN")];

/// Sums shown: heading, metric, and a part of the labels that selects its series.
const SUMS: [(&str, &str, &str); 9] = [
    ("HTTP requests", "http_server_request_duration_seconds_count", ""),
    ("gRPC calls", "rpc_server_call_duration_seconds_count", ""),
    ("5xx", "http_server_request_duration_seconds_count", "http_response_status_code=\"5"),
    ("shed", "palisade_requests_shed_total", ""),
    ("retries", "grpc_client_attempt_started_total", "grpc_attempt_type=\"retry\""),
    ("breaker opened", "palisade_breaker_transitions_total", "to=\"open\""),
    ("timeouts", "palisade_request_timeouts_total", ""),
    ("store operations", "db_client_operation_duration_seconds_count", ""),
    ("CPU seconds", "process_cpu_seconds_total", ""),
];

/// Values of [`SUMS`] by service.
#[derive(Debug, Default)]
pub(super) struct Scrape(BTreeMap<&'static str, [f64; SUMS.len()]>);

impl Scrape {
    /// Reads the metrics of the services whose admin ports are in `settings` or in the environment.
    pub(super) fn read(settings: &[(String, String)]) -> Self {
        let setting = |name: &str| {
            let given = settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            given.or_else(|| std::env::var(name).ok())
        };
        let scraped = ADMIN_PORTS.iter().filter_map(|(service, name)| {
            let address = setting(name)?.trim_start_matches("http://").trim_end_matches('/').parse().ok()?;
            Some((*service, sums(&get(address, "/metrics")?)))
        });
        Self(scraped.collect())
    }

    /// Renders the increases since `before`. Empty if no admin port is known.
    pub(super) fn markdown_since(&self, before: &Self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut page = "## Services\n\nMeasured by the services themselves, during the run.\n\n| service |".to_owned();
        for (heading, ..) in SUMS {
            let _ = write!(page, " {heading} |");
        }
        let _ = writeln!(page, "\n|---|{}", "---:|".repeat(SUMS.len()));
        for (service, after) in &self.0 {
            let before = before.0.get(service).copied().unwrap_or_default();
            let _ = write!(page, "| {service} |");
            for ((heading, ..), (after, before)) in SUMS.iter().zip(after.iter().zip(before)) {
                // A process that was restarted begins at 0.
                let increase = if *after >= before { after - before } else { *after };
                let digits = usize::from(heading.starts_with("CPU"));
                let _ = write!(page, " {increase:.digits$} |");
            }
            page.push('\n');
        }
        page.push('\n');
        page
    }
}

fn sums(metrics: &str) -> [f64; SUMS.len()] {
    SUMS.map(|(_, name, labels)| {
        let values = metrics.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_metric = rest.starts_with(['{', ' ']) && rest.contains(labels);
            is_metric.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        });
        values.filter(|value| value.is_finite()).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increases_are_shown_by_service() {
        let scrape = |requests: u32, failed: u32| {
            let text = format!(
                "http_server_request_duration_seconds_count{{http_response_status_code=\"200\"}} {requests}\n\
                 http_server_request_duration_seconds_count{{http_response_status_code=\"503\"}} {failed}\n\
                 process_cpu_seconds_total 1.25\n"
            );
            Scrape([("gateway", sums(&text))].into())
        };
        let page = scrape(30, 2).markdown_since(&scrape(10, 1));
        assert!(page.contains("| gateway | 21 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 0.0 |"), "{page}");
        assert!(scrape(3, 0).markdown_since(&scrape(10, 0)).contains("| gateway | 3 |"), "a restart begins at 0");
        assert_eq!(Scrape::default().markdown_since(&Scrape::default()), "");
    }
}
