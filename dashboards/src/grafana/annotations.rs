//! Annotations of all graphs: firing alerts, deployments, restarts.

use serde::Serialize;

use super::{Datasource, PROMETHEUS, Target};
use crate::query::{Query, external_metric, metric};

/// Annotation query and its appearance.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Annotation {
    pub(super) name: &'static str,
    datasource: Datasource,
    enable: bool,
    hide: bool,
    icon_color: &'static str,
    title_format: &'static str,
    text_format: &'static str,
    tag_keys: &'static str,
    pub(super) target: Target,
}

/// Returns all annotations.
pub(super) fn all() -> Vec<Annotation> {
    // SLO alerts have no `job` label and are shown for every selected job.
    let firing = external_metric("ALERTS").is("alertstate", "firing").matches("job", "$job|").now();
    let versions = ["job", "version", "revision"];
    let info = || metric("build.info");
    // A version that did not run one interval ago was deployed, unless the whole job was gone and
    // comes back with a version of before.
    let running_before = info().offset_by_interval();
    let came_back = info().last_before_interval().count_by(versions).unless_job(&running_before.clone().count_by(["job"]));
    let deployed = info().now().count_by(versions).unless(&running_before.count_by(versions)).unless(&came_back);
    // A restart changes the start time, or the process was gone for longer than an interval.
    let started = || metric("process_start_time_seconds");
    let instances = ["job", "instance"];
    let back = started().now().max_by(instances).unless(&started().offset_by_interval().max_by(instances));
    let back = back.and(&started().last_before_interval().max_by(instances));
    let restarted = started().changes().max_by(instances).above(0.0).or(&back).unless_job(&deployed);
    vec![
        annotation("Alerts", "red", "{{alertname}}", "{{severity}} {{job}} {{slo}}", &firing),
        annotation("Deploys", "blue", "{{job}} {{version}}", "{{revision}}", &deployed),
        annotation("Restarts", "orange", "{{job}} restarted", "{{instance}}", &restarted),
    ]
}

fn annotation(name: &'static str, color: &'static str, title: &'static str, text: &'static str, query: &Query) -> Annotation {
    let target = Target {
        ref_id: "Anno".to_owned(),
        datasource: PROMETHEUS,
        editor_mode: "code",
        expr: query.promql().to_owned(),
        legend_format: String::new(),
        format: "time_series",
        range: true,
        instant: false,
        exemplar: false,
    };
    Annotation {
        name,
        datasource: PROMETHEUS,
        enable: true,
        hide: false,
        icon_color: color,
        title_format: title,
        text_format: text,
        tag_keys: "job",
        target,
    }
}
