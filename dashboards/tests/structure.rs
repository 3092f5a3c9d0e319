//! Structure of the generated dashboards: identifiers, layout, descriptions, variables, links.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{collections::BTreeSet, time::Duration};

use palisade_dashboards::{
    known_metrics::{Names, TARGET_LABELS, catalog},
    promql_check::{labels, selectors},
    resolved_queries::{ResolvedQuery, Windows, queries, substitute_variables},
};
use serde_json::Value;

/// Windows that appear in a query only through the variables.
const MARKER_WINDOWS: Windows = Windows { rate: "4321s", range: "1234s" };

fn dashboards() -> Vec<Value> {
    let files = palisade_dashboards::files().unwrap().into_iter().filter(|file| file.path.extension().is_some_and(|kind| kind == "json"));
    files.map(|file| serde_json::from_str(&file.text).unwrap()).collect()
}

/// Returns the panels with queries, each with a name for messages.
fn panels(dashboard: &Value) -> Vec<(String, &Value)> {
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    panels.map(|panel| (format!("{}: {}", text(&dashboard["uid"]), text(&panel["title"])), panel)).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

#[test]
fn dashboard_uids_panel_ids_and_titles_are_unique() {
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        let uid = text(&dashboard["uid"]).to_owned();
        assert!(uid.starts_with("palisade-") && uid.len() <= 40, "{uid}");
        assert_eq!((&dashboard["schemaVersion"], &dashboard["editable"]), (&42.into(), &false.into()), "{uid}");
        let ids: Vec<_> = items(&dashboard, "panels").map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(BTreeSet::from_iter(&ids).len(), ids.len(), "{uid}");
        let titles: Vec<_> = panels(&dashboard).into_iter().map(|(title, _)| title).collect();
        assert_eq!(BTreeSet::from_iter(&titles).len(), titles.len(), "{titles:?}");
        assert!(uids.insert(uid));
    }
    let expected =
        ["overview", "gateway", "grpc", "resilience", "data", "orders", "runtime", "load"].map(|name| format!("palisade-{name}"));
    assert_eq!(uids, expected.into());
}

#[test]
fn panels_fit_grid_without_overlap() {
    for dashboard in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in items(&dashboard, "panels") {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{}: {} overlaps another panel", dashboard["uid"], panel["title"]);
            }
        }
    }
}

#[test]
fn overview_fits_one_screen() {
    let overview = dashboards().into_iter().find(|dashboard| dashboard["uid"] == "palisade-overview").unwrap();
    let bottom = items(&overview, "panels").map(|panel| panel["gridPos"]["y"].as_u64().unwrap() + panel["gridPos"]["h"].as_u64().unwrap());
    assert!(bottom.max().unwrap() <= 25);
}

#[test]
fn each_panel_has_description_unit_and_query() {
    for dashboard in dashboards() {
        for (title, panel) in panels(&dashboard) {
            let (description, remediation) = text(&panel["description"]).split_once("**Remediation:**").unwrap();
            assert!(description.trim().len() > 10 && remediation.trim().len() > 10, "{title} has no description");
            let field = &panel["fieldConfig"]["defaults"];
            assert_ne!(text(&field["unit"]), "", "{title} has no unit");
            let steps = items(&field["thresholds"], "steps").count();
            assert!(field["unit"] != "percentunit" || steps > 1, "{title} is a ratio without thresholds");
            assert!(items(panel, "targets").count() > 0, "{title} has no query");
            for target in items(panel, "targets").chain([panel]) {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            }
            for target in items(panel, "targets") {
                assert_ne!(text(&target["legendFormat"]), "", "{title}");
            }
        }
    }
}

#[test]
fn each_dashboard_has_variables_and_annotations() {
    for dashboard in dashboards() {
        let variables: Vec<_> = items(&dashboard["templating"], "list").map(|variable| text(&variable["name"])).collect();
        assert_eq!(variables, ["datasource", "job", "instance", "jaeger"]);
        let all = items(&dashboard["templating"], "list").filter(|variable| variable["type"] == "query");
        assert!(all.into_iter().all(|choice| choice["includeAll"] == true && choice["multi"] == true && choice["refresh"] == 2));
        let marks: Vec<_> = items(&dashboard["annotations"], "list").map(|mark| text(&mark["name"])).collect();
        assert_eq!(marks, ["Alerts", "Deploys", "Restarts"]);
        assert_eq!(dashboard["links"][0]["tags"], dashboard["tags"]);
    }
}

#[test]
fn queries_use_job_instance_and_window_variables() {
    let names = Names::default();
    for ResolvedQuery { dashboard, panel, promql, .. } in queries(MARKER_WINDOWS) {
        for selector in selectors(&promql).into_iter().filter(|_| panel != "Variables") {
            let is_palisade = names.get(&selector.name).unwrap().is_palisade;
            let is_filtered = |label: &str| selector.matchers.iter().any(|(name, value)| name == label && value == ".+");
            assert!(
                !is_palisade || TARGET_LABELS.into_iter().all(is_filtered),
                "{dashboard}: {panel}: {} is not filtered by job and instance",
                selector.name
            );
            let windows = [Duration::from_secs(4321), Duration::from_secs(1234)];
            assert!(selector.range.is_none_or(|range| windows.contains(&range)), "{dashboard}: {panel} has a fixed window");
        }
    }
}

/// Process metrics without a panel: most virtual memory is never touched, so they say little.
const METRICS_WITHOUT_PANEL: [&str; 2] = ["process_virtual_memory_bytes", "process_virtual_memory_max_bytes"];

#[test]
fn each_metric_is_on_a_panel() {
    let queried: BTreeSet<_> =
        queries(Windows::default()).iter().flat_map(|query| selectors(&query.promql)).map(|found| found.name).collect();
    for metric in catalog() {
        let name = metric.exposed();
        let on_a_panel = ["", "_bucket", "_count", "_sum"].iter().any(|part| queried.contains(&format!("{name}{part}")));
        assert!(on_a_panel != METRICS_WITHOUT_PANEL.contains(&name.as_str()), "{name} must be on a panel, or on none if it is exempt");
    }
}

#[test]
fn resolved_queries_have_no_variables() {
    for query in queries(Windows::default()) {
        assert!(!query.promql.contains('$'), "{}", query.promql);
    }
}

/// `_sum / _count` is a mean and `_sum / _sum` a share of time. No other query may use a sum of
/// durations.
#[test]
fn sum_series_are_not_used_for_counting() {
    for ResolvedQuery { dashboard, panel, promql, .. } in queries(MARKER_WINDOWS) {
        let selected = selectors(&promql);
        let sums = selected.iter().filter(|selector| selector.name.ends_with("_sum")).count();
        assert!(sums == 0 || (selected.len(), promql.matches(" / ").count()) == (2, 1), "{dashboard}: {panel}: {promql}");
    }
}

#[test]
fn links_use_labels_of_the_series() {
    let names = Names::default();
    for dashboard in dashboards() {
        for (title, panel) in panels(&dashboard) {
            let urls: Vec<_> = items(&panel["fieldConfig"]["defaults"], "links").map(|link| text(&link["url"])).collect();
            let wanted = urls.iter().flat_map(|url| url.split("${__field.labels.").skip(1)).map(|rest| rest.split('}').next().unwrap());
            let wanted: BTreeSet<_> = wanted.collect();
            for target in items(panel, "targets") {
                let has = labels(&substitute_variables(text(&target["expr"]), Windows::default()), &names);
                assert!(wanted.iter().all(|label| has.contains(*label)), "{title}: {wanted:?} of {has:?}");
            }
            let needs_traces =
                ["Error", "error", "p95", "p99"].iter().any(|word| text(&panel["title"]).contains(word)) && title.contains("gateway");
            assert!(
                !needs_traces || urls.iter().any(|url| url.starts_with("${jaeger:raw}/search?service=")) || title.contains("Queue"),
                "{title} has no link to traces"
            );
        }
    }
}

#[test]
fn links_between_dashboards_resolve() {
    let dashboards = dashboards();
    let uids: BTreeSet<_> = dashboards.iter().map(|dashboard| text(&dashboard["uid"])).collect();
    for (title, panel) in dashboards.iter().flat_map(panels) {
        for link in items(&panel["fieldConfig"]["defaults"], "links") {
            let uid = text(&link["url"]).strip_prefix("/d/").map(|rest| rest.split('?').next().unwrap());
            assert!(uid.is_none_or(|uid| uids.contains(uid)), "{title}: {}", link["url"]);
        }
    }
}
