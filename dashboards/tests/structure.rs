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

/// Returns the panels with queries, those of collapsed rows included, each with a name for
/// messages.
fn panels(dashboard: &Value) -> Vec<(String, &Value)> {
    let all = items(dashboard, "panels").flat_map(|panel| [panel].into_iter().chain(items(panel, "panels")));
    let panels = all.filter(|panel| panel["type"] != "row");
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
        let inside = panels(&dashboard).into_iter().map(|(_, panel)| panel);
        let rows = items(&dashboard, "panels").filter(|panel| panel["type"] == "row");
        let ids: Vec<_> = inside.chain(rows).map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(BTreeSet::from_iter(&ids).len(), ids.len(), "{uid}");
        let titles: Vec<_> = panels(&dashboard).into_iter().map(|(title, _)| title).collect();
        assert_eq!(BTreeSet::from_iter(&titles).len(), titles.len(), "{titles:?}");
        assert!(uids.insert(uid));
    }
    let expected: BTreeSet<_> = palisade_dashboards::dashboards().iter().map(palisade_dashboards::dashboard::Dashboard::uid).collect();
    assert_eq!(uids, expected);
}

#[test]
fn panels_fit_grid_without_overlap() {
    for dashboard in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in items(&dashboard, "panels") {
            occupy(&mut taken, panel);
            // A collapsed row lies over the next rows until it is opened.
            let mut taken_in_row = BTreeSet::new();
            items(panel, "panels").for_each(|inside| occupy(&mut taken_in_row, inside));
            assert_eq!(panel["collapsed"] == true, !taken_in_row.is_empty(), "{}", panel["title"]);
        }
    }
}

/// Marks the cells of a panel as taken.
fn occupy(taken: &mut BTreeSet<(u64, u64)>, panel: &Value) {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
    assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
    for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
        assert!(taken.insert(cell), "{} overlaps another panel", panel["title"]);
    }
}

/// Grid rows of a screen of 1080 lines.
const SCREEN: u64 = 25;

#[test]
fn overview_fits_one_screen_and_others_two() {
    for dashboard in dashboards() {
        let ends =
            items(&dashboard, "panels").map(|panel| panel["gridPos"]["y"].as_u64().unwrap() + panel["gridPos"]["h"].as_u64().unwrap());
        let screens = if dashboard["uid"] == "palisade-overview" { 1 } else { 2 };
        let end = ends.max().unwrap();
        assert!(end <= screens * SCREEN, "{} has {end} rows", dashboard["uid"]);
    }
}

/// Lines of one job label.
const JOBS: usize = 3;

#[test]
fn graphs_have_at_most_eight_lines() {
    for (title, panel) in dashboards().iter().flat_map(panels).filter(|(_, panel)| panel["type"] == "timeseries") {
        let lines = items(panel, "targets").map(|target| {
            let query = text(&target["expr"]);
            let limit = ["and topk(", "and bottomk("].iter().find_map(|start| query.split_once(start));
            let limited = limit.map(|(_, rest)| rest.split(',').next().unwrap().parse().unwrap());
            let labels = text(&target["legendFormat"]).matches("{{").count();
            let by_job = text(&target["legendFormat"]).contains("{{job}}");
            limited.or_else(|| [1, JOBS].get(labels).copied().filter(|_| labels == 0 || by_job))
        });
        let lines: Option<usize> = lines.sum();
        assert!(lines.is_some_and(|lines| (1..=8).contains(&lines)), "{title}: {lines:?} lines");
        let legend = &panel["options"]["legend"];
        assert!(legend["displayMode"] == "list" || ["Max", "Min"].contains(&text(&legend["sortBy"])), "{title}: unsorted legend");
    }
}

/// Gauges that every replica reads from the store of its service.
const STORE_GAUGES: [&str; 13] = [
    "palisade_saga_in_flight",
    "palisade_saga_oldest_in_flight_seconds",
    "palisade_outbox_pending",
    "palisade_outbox_oldest_seconds",
    "palisade_outbox_dead_lettered",
    "palisade_invariant_violations",
    "palisade_invariant_last_audit_seconds",
    "palisade_stock_units",
    "palisade_stock_out_products",
    "palisade_stock_overdue_holds",
    "palisade_store_quarantined_rows",
    "palisade_store_overdue_rows",
    "palisade_store_clock_offset_seconds",
];

#[test]
fn gauges_of_shared_stores_are_not_added_up() {
    let exposed: BTreeSet<_> = catalog().iter().map(|metric| metric.exposed()).collect();
    for name in STORE_GAUGES {
        assert!(exposed.contains(name), "{name} is in no catalog");
        for ResolvedQuery { dashboard, panel, promql, .. } in queries(Windows::default()) {
            // The aggregation next to the selector.
            let added_up = promql.match_indices(name).any(|(at, _)| promql[..at].rfind("sum") > promql[..at].rfind("max"));
            assert!(!added_up, "{dashboard}: {panel}: replicas report the same {name}: {promql}");
        }
    }
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
        // The choice of lines repeats the query.
        let selected: BTreeSet<_> = selected.iter().map(|selector| &selector.text).collect();
        assert!(sums == 0 || (selected.len() == 2 && promql.contains(" / ")), "{dashboard}: {panel}: {promql}");
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
