//! Each dashboard is whole: what Grafana needs of it, and what a reader does.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use std::{collections::BTreeSet, time::Duration};

use palisade_dashboards::{
    promql_check::{labels, selectors},
    resolved_queries::{LiveQuery, Windows, substitute_variables, queries},
    known_metrics::{Names, TARGET_LABELS, catalogue},
};
use serde_json::Value;

/// Windows that no query has unless it uses the variables.
const MARKED: Windows = Windows { rate: "4321s", range: "1234s" };

fn dashboards() -> Vec<Value> {
    let files = palisade_dashboards::files().unwrap().into_iter().filter(|file| file.path.extension().is_some_and(|kind| kind == "json"));
    files.map(|file| serde_json::from_str(&file.text).unwrap()).collect()
}

/// Panels that ask for something, with a name for messages.
fn panels(dashboard: &Value) -> Vec<(String, &Value)> {
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    panels.map(|panel| (format!("{}: {}", text(&dashboard["uid"]), text(&panel["title"])), panel)).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

#[test]
fn grafana_can_tell_them_apart() {
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        let uid = text(&dashboard["uid"]).to_owned();
        assert!(uid.starts_with("palisade-") && uid.len() <= 40, "{uid}");
        assert_eq!((&dashboard["schemaVersion"], &dashboard["editable"]), (&42.into(), &false.into()), "{uid}");
        let ids: Vec<_> = each(&dashboard, "panels").map(|panel| panel["id"].as_u64().unwrap()).collect();
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
fn panels_stand_in_the_grid_and_on_nobody() {
    for dashboard in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in each(&dashboard, "panels") {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{}: {} stands on another", dashboard["uid"], panel["title"]);
            }
        }
    }
}

#[test]
fn the_overview_is_one_screen() {
    let overview = dashboards().into_iter().find(|dashboard| dashboard["uid"] == "palisade-overview").unwrap();
    let bottom = each(&overview, "panels").map(|panel| panel["gridPos"]["y"].as_u64().unwrap() + panel["gridPos"]["h"].as_u64().unwrap());
    assert!(bottom.max().unwrap() <= 25);
}

#[test]
fn each_panel_says_what_it_tells_and_what_to_do() {
    for dashboard in dashboards() {
        for (title, panel) in panels(&dashboard) {
            let (tells, if_bad) = text(&panel["description"]).split_once("**When it looks bad:**").unwrap();
            assert!(tells.trim().len() > 10 && if_bad.trim().len() > 10, "{title} has no description");
            let field = &panel["fieldConfig"]["defaults"];
            assert_ne!(text(&field["unit"]), "", "{title} has no unit");
            let steps = each(&field["thresholds"], "steps").count();
            assert!(field["unit"] != "percentunit" || steps > 1, "{title} is a share without thresholds");
            assert!(each(panel, "targets").count() > 0, "{title} asks for nothing");
            for target in each(panel, "targets").chain([panel]) {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            }
            for target in each(panel, "targets") {
                assert_ne!(text(&target["legendFormat"]), "", "{title}");
            }
        }
    }
}

#[test]
fn variables_and_marks_are_on_every_dashboard() {
    for dashboard in dashboards() {
        let variables: Vec<_> = each(&dashboard["templating"], "list").map(|variable| text(&variable["name"])).collect();
        assert_eq!(variables, ["datasource", "job", "instance", "jaeger"]);
        let all = each(&dashboard["templating"], "list").filter(|variable| variable["type"] == "query");
        assert!(all.into_iter().all(|choice| choice["includeAll"] == true && choice["multi"] == true && choice["refresh"] == 2));
        let marks: Vec<_> = each(&dashboard["annotations"], "list").map(|mark| text(&mark["name"])).collect();
        assert_eq!(marks, ["Alerts", "Deploys", "Restarts"]);
        assert_eq!(dashboard["links"][0]["tags"], dashboard["tags"]);
    }
}

#[test]
fn every_query_follows_what_the_reader_chose() {
    let names = Names::default();
    for LiveQuery { dashboard, panel, promql, .. } in queries(MARKED) {
        for selector in selectors(&promql).into_iter().filter(|_| panel != "Variables") {
            let ours = names.get(&selector.name).unwrap().ours;
            let asked = |label: &str| selector.matchers.iter().any(|(name, value)| name == label && value == ".+");
            assert!(
                !ours || TARGET_LABELS.into_iter().all(asked),
                "{dashboard}: {panel}: {} is not asked for by job and instance",
                selector.name
            );
            let windows = [Duration::from_secs(4321), Duration::from_secs(1234)];
            assert!(selector.range.is_none_or(|range| windows.contains(&range)), "{dashboard}: {panel} has a window of its own");
        }
    }
}

/// Says little: most of it is never touched.
const ON_NO_PANEL: [&str; 2] = ["process_virtual_memory_bytes", "process_virtual_memory_max_bytes"];

#[test]
fn each_metric_is_on_a_panel() {
    let asked: BTreeSet<_> =
        queries(Windows::default()).iter().flat_map(|query| selectors(&query.promql)).map(|found| found.name).collect();
    for metric in catalogue() {
        let name = metric.exposed();
        let on_a_panel = ["", "_bucket", "_count", "_sum"].iter().any(|part| asked.contains(&format!("{name}{part}")));
        assert!(on_a_panel != ON_NO_PANEL.contains(&name.as_str()), "no panel shows {name}, or one does that should not");
    }
}

#[test]
fn no_variable_is_left_when_all_are_filled_in() {
    for query in queries(Windows::default()) {
        assert!(!query.promql.contains('$'), "{}", query.promql);
    }
}

/// Only `_sum` by `_count` is a mean, and only `_sum` by `_sum` a share of time; nothing else adds up durations.
#[test]
fn nothing_is_counted_by_its_sum() {
    for LiveQuery { dashboard, panel, promql, .. } in queries(MARKED) {
        let selected = selectors(&promql);
        let sums = selected.iter().filter(|selector| selector.name.ends_with("_sum")).count();
        assert!(sums == 0 || (selected.len(), promql.matches(" / ").count()) == (2, 1), "{dashboard}: {panel}: {promql}");
    }
}

#[test]
fn links_name_labels_that_the_lines_have() {
    let names = Names::default();
    for dashboard in dashboards() {
        for (title, panel) in panels(&dashboard) {
            let urls: Vec<_> = each(&panel["fieldConfig"]["defaults"], "links").map(|link| text(&link["url"])).collect();
            let wanted = urls.iter().flat_map(|url| url.split("${__field.labels.").skip(1)).map(|rest| rest.split('}').next().unwrap());
            let wanted: BTreeSet<_> = wanted.collect();
            for target in each(panel, "targets") {
                let has = labels(&substitute_variables(text(&target["expr"]), Windows::default()), &names);
                assert!(wanted.iter().all(|label| has.contains(*label)), "{title}: {wanted:?} of {has:?}");
            }
            let red = ["Error", "error", "p95", "p99"].iter().any(|word| text(&panel["title"]).contains(word)) && title.contains("gateway");
            assert!(
                !red || urls.iter().any(|url| url.starts_with("${jaeger:raw}/search?service=")) || title.contains("Queue"),
                "{title} leads to no traces"
            );
        }
    }
}

#[test]
fn links_between_dashboards_lead_somewhere() {
    let dashboards = dashboards();
    let uids: BTreeSet<_> = dashboards.iter().map(|dashboard| text(&dashboard["uid"])).collect();
    for (title, panel) in dashboards.iter().flat_map(panels) {
        for link in each(&panel["fieldConfig"]["defaults"], "links") {
            let uid = text(&link["url"]).strip_prefix("/d/").map(|rest| rest.split('?').next().unwrap());
            assert!(uid.is_none_or(|uid| uids.contains(uid)), "{title}: {}", link["url"]);
        }
    }
}
