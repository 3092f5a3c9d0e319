//! Content negotiation by `Accept` and `Accept-Encoding` (RFC 9110 §12.5).

use http::{HeaderMap, HeaderName, header};

/// Returns whether the client accepts responses in gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    quality(headers, header::ACCEPT_ENCODING, "gzip").is_some_and(|quality| quality > 0.0)
}

/// Returns the highest quality value (RFC 9110 §12.4.2) that the header gives `value`.
pub(crate) fn quality(headers: &HeaderMap, name: HeaderName, value: &str) -> Option<f64> {
    let lists = headers.get_all(name);
    let items = lists.iter().filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(','));
    let qualities = items.filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_named = parts.next()?.eq_ignore_ascii_case(value);
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |quality| quality.parse().ok());
        quality.filter(|_| is_named)
    });
    qualities.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_is_read_from_accept_headers() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, openmetrics, text) in [
            (prometheus_2, Some(1.0), Some(0.5)),
            ("text/plain", None, Some(1.0)),
            ("Application/OpenMetrics-Text; q=0", Some(0.0), None),
            ("application/openmetrics-text;q=nonsense", None, None),
            ("", None, None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(quality(&headers, header::ACCEPT, "application/openmetrics-text"), openmetrics, "{accept}");
            assert_eq!(quality(&headers, header::ACCEPT, "text/plain"), text, "{accept}");
        }
    }
}
