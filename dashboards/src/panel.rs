//! One panel: a question, the queries that answer it, and what to do when the answer looks bad.

use crate::query::Query;

/// One panel.
#[must_use]
#[derive(Debug, Clone)]
pub struct Panel {
    pub(crate) title: &'static str,
    pub(crate) tells: &'static str,
    pub(crate) if_bad: &'static str,
    pub(crate) form: Visualization,
    pub(crate) unit: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) steps: Vec<Step>,
    pub(crate) values: &'static [(u8, &'static str, Color)],
    pub(crate) links: Vec<Link>,
    pub(crate) queries: Vec<Query>,
}

/// How the numbers are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visualization {
    Graph,
    Stacked,
    Number,
    Timeline,
    Heatmap,
    Table,
}

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// All is well.
    Green,
    /// Look at it.
    Yellow,
    /// Do something.
    Red,
}

/// From this value on it has this colour; without a value, from the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) from: Option<f64>,
    pub(crate) color: Color,
}

/// Where a click leads.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) title: String,
    pub(crate) url: String,
}

/// Which traces a line's link asks Jaeger for.
#[must_use]
#[derive(Debug, Clone, Copy)]
pub struct Traces {
    service: &'static str,
    operation: &'static str,
    only: &'static str,
}

/// Grafana's names of units.
pub mod unit {
    /// Requests or calls per second.
    pub const REQUESTS: &str = "reqps";
    /// Anything else per second.
    pub const PER_SECOND: &str = "ops";
    /// Anything per minute.
    pub const PER_MINUTE: &str = "cpm";
    /// A duration in seconds.
    pub const SECONDS: &str = "s";
    /// Bytes, in powers of two.
    pub const BYTES: &str = "bytes";
    /// A share of 1.
    pub const SHARE: &str = "percentunit";
    /// Whole things.
    pub const COUNT: &str = "none";
    /// A number without a unit.
    pub const NUMBER: &str = "short";
}

const RUNBOOKS: &str = "https://github.com/palisade-rs/palisade/blob/main/docs/runbooks";

/// A panel of lines over time.
pub fn timeseries(title: &'static str) -> Panel {
    Panel::new(title, Visualization::Graph, 8, 8)
}

/// A panel of areas that add up, over time.
pub fn stacked_timeseries(title: &'static str) -> Panel {
    Panel::new(title, Visualization::Stacked, 8, 8)
}

/// A panel of the last numbers, large.
pub fn stat(title: &'static str) -> Panel {
    Panel::new(title, Visualization::Number, 6, 4)
}

/// A panel of states over time.
pub fn state_timeline(title: &'static str) -> Panel {
    Panel::new(title, Visualization::Timeline, 24, 8)
}

/// A panel of a histogram's buckets over time.
pub fn heatmap(title: &'static str) -> Panel {
    Panel::new(title, Visualization::Heatmap, 8, 8)
}

/// A panel of labels.
pub fn table(title: &'static str) -> Panel {
    Panel::new(title, Visualization::Table, 8, 8)
}

impl Panel {
    fn new(title: &'static str, form: Visualization, width: u32, height: u32) -> Self {
        let nothing = Self {
            title,
            tells: "",
            if_bad: "",
            form,
            unit: "",
            width,
            height,
            steps: Vec::new(),
            values: &[],
            links: Vec::new(),
            queries: Vec::new(),
        };
        nothing.thresholds(&[(None, Color::Green)])
    }

    /// What it tells.
    pub fn description(self, tells: &'static str) -> Self {
        Self { tells, ..self }
    }

    /// What to do when it looks bad.
    pub fn remediation(self, if_bad: &'static str) -> Self {
        Self { if_bad, ..self }
    }

    /// Adds a query.
    pub fn query(mut self, query: Query) -> Self {
        self.queries.push(query);
        self
    }

    /// One of those in [`unit`](mod@unit).
    pub fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// A share of 1, yellow and red from these values on.
    pub fn share(self, yellow: f64, red: f64) -> Self {
        self.unit(unit::SHARE).limits(yellow, red)
    }

    /// A share of 1, which is yellow below the first of these values, and red below the second.
    pub fn share_of_good(self, yellow: f64, red: f64) -> Self {
        self.unit(unit::SHARE).thresholds(&[(None, Color::Red), (Some(red), Color::Yellow), (Some(yellow), Color::Green)])
    }

    /// A share of errors: yellow from 0.1 %, the budget of most objectives, red from 1 %.
    pub fn errors(self) -> Self {
        self.share(0.001, 0.01)
    }

    /// Yellow and red from these values on.
    pub fn limits(self, yellow: f64, red: f64) -> Self {
        self.thresholds(&[(None, Color::Green), (Some(yellow), Color::Yellow), (Some(red), Color::Red)])
    }

    /// Red from this value on.
    pub fn limit(self, red: f64) -> Self {
        self.thresholds(&[(None, Color::Green), (Some(red), Color::Red)])
    }

    fn thresholds(self, steps: &[(Option<f64>, Color)]) -> Self {
        Self { steps: steps.iter().map(|&(from, color)| Step { from, color }).collect(), ..self }
    }

    /// What single values mean.
    pub fn values(self, values: &'static [(u8, &'static str, Color)]) -> Self {
        Self { values, ..self }
    }

    /// Columns out of 24, and rows of 38 pixels.
    pub fn sized(self, width: u32, height: u32) -> Self {
        Self { width, height, ..self }
    }

    /// Each line leads to its traces.
    pub fn traces(self, traces: Traces) -> Self {
        self.link("Traces".to_owned(), traces.url())
    }

    /// Each line leads to what to do about the alert of this name.
    pub fn runbook(self, alert: &'static str) -> Self {
        self.link(format!("Runbook: {alert}"), format!("{RUNBOOKS}/{alert}.md"))
    }

    /// Each line leads to the dashboard of this name, at the same time and for the same processes.
    pub fn link_to_dashboard(self, dashboard: &'static str) -> Self {
        self.link(format!("More: {dashboard}"), format!("/d/palisade-{dashboard}?${{__url_time_range}}&${{__all_variables}}"))
    }

    fn link(mut self, title: String, url: String) -> Self {
        self.links.push(Link { title, url });
        self
    }

    /// The text under the title's mark.
    pub(crate) fn markdown(&self) -> String {
        format!("{}\n\n**When it looks bad:** {}", self.tells, self.if_bad)
    }
}

impl Traces {
    /// Those of the gateway.
    pub const GATEWAY: Self = Self { service: "gateway", operation: "", only: "" };
    /// Those of a line's route of the gateway.
    pub const ROUTE: Self =
        Self { operation: "&operation=${__field.labels.http_request_method}%20${__field.labels.http_route}", ..Self::GATEWAY };
    /// Those of a line's process.
    pub const SERVICE: Self = Self { service: "${__field.labels.job}", operation: "", only: "" };
    /// Those of a line's method, on the side that the line is about.
    pub const METHOD: Self = Self { operation: "&operation=${__field.labels.rpc_method}", ..Self::SERVICE };
    /// Likewise, for the metrics of single attempts.
    pub const ATTEMPT: Self = Self { operation: "&operation=${__field.labels.grpc_method}", ..Self::SERVICE };

    /// Only what failed.
    pub const fn failed(self) -> Self {
        Self { only: "&tags=%7B%22error%22%3A%22true%22%7D", ..self }
    }

    /// Only what took long.
    pub const fn slow(self) -> Self {
        Self { only: "&minDuration=250ms", ..self }
    }

    /// Jaeger's search page; it takes microseconds, Grafana has milliseconds.
    fn url(self) -> String {
        let Self { service, operation, only } = self;
        format!("${{jaeger:raw}}/search?service={service}{operation}{only}&limit=20&start=${{__from}}000&end=${{__to}}000")
    }
}

impl Color {
    /// Grafana's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        }
    }
}
