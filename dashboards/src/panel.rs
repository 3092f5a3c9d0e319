//! Panel: queries, description, and remediation if the values are bad.

use crate::query::Query;

/// Panel definition.
#[must_use]
#[derive(Debug, Clone)]
pub struct Panel {
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    pub(crate) remediation: &'static str,
    pub(crate) visualization: Visualization,
    pub(crate) unit: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) thresholds: Vec<Threshold>,
    pub(crate) values: &'static [(u8, &'static str, Color)],
    pub(crate) links: Vec<Link>,
    pub(crate) queries: Vec<Query>,
    pub(crate) lines: Lines,
    pub(crate) no_value: Option<&'static str>,
    /// Names of the value columns of a table, one per query.
    pub(crate) columns: &'static [&'static str],
}

/// Lines drawn if the queries return more than a reader can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// The highest, without silent series.
    Highest,
    /// The lowest, for values whose decrease is the problem.
    Lowest,
}

/// Maximum number of lines of a graph.
const MAX_LINES: usize = 8;

/// Grafana visualization of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visualization {
    TimeSeries,
    StackedTimeSeries,
    Stat,
    StateTimeline,
    Heatmap,
    Table,
}

/// Threshold or state colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Healthy.
    Green,
    /// Warning.
    Yellow,
    /// Critical.
    Red,
}

/// Threshold: the colour from this value upwards, or the base colour without a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threshold {
    pub(crate) from: Option<f64>,
    pub(crate) color: Color,
}

/// Data link.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) title: String,
    pub(crate) url: String,
}

/// Jaeger search that a series links to.
#[must_use]
#[derive(Debug, Clone, Copy)]
pub struct Traces {
    service: &'static str,
    operation: &'static str,
    filter: &'static str,
}

/// Grafana unit identifiers.
pub mod unit {
    /// Requests or calls per second.
    pub const REQUESTS: &str = "reqps";
    /// Other events per second.
    pub const PER_SECOND: &str = "ops";
    /// Events per minute.
    pub const PER_MINUTE: &str = "cpm";
    /// Duration, seconds.
    pub const SECONDS: &str = "s";
    /// Bytes, in powers of two.
    pub const BYTES: &str = "bytes";
    /// Ratio between 0 and 1.
    pub const SHARE: &str = "percentunit";
    /// Integer count.
    pub const COUNT: &str = "none";
    /// Number without a unit.
    pub const NUMBER: &str = "short";
}

const RUNBOOKS: &str = "https://github.com/palisade-rs/palisade/blob/main/docs/runbooks";

/// Creates a time series panel with lines.
pub fn timeseries(title: &'static str) -> Panel {
    Panel::new(title, Visualization::TimeSeries, 8, 8)
}

/// Creates a time series panel with stacked areas.
pub fn stacked_timeseries(title: &'static str) -> Panel {
    Panel::new(title, Visualization::StackedTimeSeries, 8, 8)
}

/// Creates a stat panel: the last value of each series.
pub fn stat(title: &'static str) -> Panel {
    Panel::new(title, Visualization::Stat, 6, 4)
}

/// Creates a state timeline panel.
pub fn state_timeline(title: &'static str) -> Panel {
    Panel::new(title, Visualization::StateTimeline, 24, 8)
}

/// Creates a heatmap panel of histogram buckets.
pub fn heatmap(title: &'static str) -> Panel {
    Panel::new(title, Visualization::Heatmap, 8, 8)
}

/// Creates a table panel of labels.
pub fn table(title: &'static str) -> Panel {
    Panel::new(title, Visualization::Table, 8, 8)
}

impl Panel {
    fn new(title: &'static str, visualization: Visualization, width: u32, height: u32) -> Self {
        let panel = Self {
            title,
            description: "",
            remediation: "",
            visualization,
            unit: "",
            width,
            height,
            thresholds: Vec::new(),
            values: &[],
            links: Vec::new(),
            queries: Vec::new(),
            lines: Lines::Highest,
            no_value: None,
            columns: &[],
        };
        panel.thresholds(&[(None, Color::Green)])
    }

    /// Sets the description of the shown values.
    pub fn description(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    /// Sets the diagnosis and remediation for bad values.
    pub fn remediation(self, remediation: &'static str) -> Self {
        Self { remediation, ..self }
    }

    /// Adds a query.
    pub fn query(mut self, query: Query) -> Self {
        self.queries.push(query);
        self
    }

    /// Sets the unit, one of [`unit`](mod@unit).
    pub fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// Shows the values of a table's queries in columns with these names.
    pub fn columns(self, columns: &'static [&'static str]) -> Self {
        Self { columns, ..self }
    }

    /// Links each row of a table with the column `alertname` to the runbook of its alert.
    pub fn runbook_of_row(self) -> Self {
        self.link("Runbook".to_owned(), format!("{RUNBOOKS}/${{__data.fields.alertname}}.md"))
    }

    /// Sets the text shown without data.
    pub fn without_data(self, text: &'static str) -> Self {
        Self { no_value: Some(text), ..self }
    }

    /// Shows a ratio that turns yellow and red from these values upwards.
    pub fn share(self, yellow: f64, red: f64) -> Self {
        self.unit(unit::SHARE).limits(yellow, red)
    }

    /// Draws the lowest series instead of the highest, silent ones included.
    pub fn lowest_first(self) -> Self {
        Self { lines: Lines::Lowest, ..self }
    }

    /// Shows a success ratio that turns yellow and red below these values.
    pub fn share_of_good(self, yellow: f64, red: f64) -> Self {
        self.unit(unit::SHARE).lowest_first().thresholds(&[(None, Color::Red), (Some(red), Color::Yellow), (Some(yellow), Color::Green)])
    }

    /// Shows an error ratio: yellow from 0.1 %, the error budget of most objectives, red from 1 %.
    pub fn errors(self) -> Self {
        self.share(0.001, 0.01)
    }

    /// Sets yellow and red thresholds.
    pub fn limits(self, yellow: f64, red: f64) -> Self {
        self.thresholds(&[(None, Color::Green), (Some(yellow), Color::Yellow), (Some(red), Color::Red)])
    }

    /// Sets a red threshold.
    pub fn limit(self, red: f64) -> Self {
        self.thresholds(&[(None, Color::Green), (Some(red), Color::Red)])
    }

    fn thresholds(self, steps: &[(Option<f64>, Color)]) -> Self {
        Self { thresholds: steps.iter().map(|&(from, color)| Threshold { from, color }).collect(), ..self }
    }

    /// Sets the value mappings.
    pub fn values(self, values: &'static [(u8, &'static str, Color)]) -> Self {
        Self { values, ..self }
    }

    /// Sets the size: width in columns out of 24, height in rows of 38 pixels.
    pub fn sized(self, width: u32, height: u32) -> Self {
        Self { width, height, ..self }
    }

    /// Links each series to its traces.
    pub fn traces(self, traces: Traces) -> Self {
        self.link("Traces".to_owned(), traces.url())
    }

    /// Links each series to the runbook of this alert.
    pub fn runbook(self, alert: &'static str) -> Self {
        self.link(format!("Runbook: {alert}"), format!("{RUNBOOKS}/{alert}.md"))
    }

    /// Links each series to the dashboard of this name, with the same time range and variables.
    pub fn link_to_dashboard(self, dashboard: &'static str) -> Self {
        self.link(format!("More: {dashboard}"), format!("/d/palisade-{dashboard}?${{__url_time_range}}&${{__all_variables}}"))
    }

    fn link(mut self, title: String, url: String) -> Self {
        self.links.push(Link { title, url });
        self
    }

    /// Returns the queries as drawn: at most [`MAX_LINES`] lines in a graph.
    pub(crate) fn drawn_queries(&self) -> Vec<Query> {
        let is_graph = matches!(self.visualization, Visualization::TimeSeries | Visualization::StackedTimeSeries);
        let known: Option<usize> = self.queries.iter().map(Query::known_lines).sum();
        if !is_graph || known.is_some_and(|lines| lines <= MAX_LINES) {
            return self.queries.clone();
        }
        let limit = MAX_LINES / self.queries.len().max(1);
        let drawn = |query: &Query| match self.lines {
            Lines::Highest => query.highest(limit),
            Lines::Lowest => query.lowest(limit),
        };
        self.queries.iter().map(|query| if query.known_lines() == Some(1) { query.clone() } else { drawn(query) }).collect()
    }

    /// Returns the panel description in Markdown.
    pub(crate) fn markdown(&self) -> String {
        format!("{}\n\n**Remediation:** {}", self.description, self.remediation)
    }
}

impl Traces {
    /// Traces of the gateway.
    pub const GATEWAY: Self = Self { service: "gateway", operation: "", filter: "" };
    /// Traces of the series' route at the gateway.
    pub const ROUTE: Self =
        Self { operation: "&operation=${__field.labels.http_request_method}%20${__field.labels.http_route}", ..Self::GATEWAY };
    /// Traces of the series' service.
    pub const SERVICE: Self = Self { service: "${__field.labels.job}", operation: "", filter: "" };
    /// Traces of the series' gRPC method, on the side that the series measures.
    pub const METHOD: Self = Self { operation: "&operation=${__field.labels.rpc_method}", ..Self::SERVICE };
    /// Traces of the series' gRPC method, for attempt metrics.
    pub const ATTEMPT: Self = Self { operation: "&operation=${__field.labels.grpc_method}", ..Self::SERVICE };

    /// Restricts the search to failed server spans: a failed attempt that was retried fails no
    /// request.
    pub const fn failed(self) -> Self {
        Self { filter: "&tags=%7B%22error%22%3A%22true%22%2C%22span.kind%22%3A%22server%22%7D", ..self }
    }

    /// Restricts the search to failed client spans, for calls measured by the client.
    pub const fn failed_calls(self) -> Self {
        Self { filter: "&tags=%7B%22error%22%3A%22true%22%2C%22span.kind%22%3A%22client%22%7D", ..self }
    }

    /// Restricts the search to traces of at least 250 ms.
    pub const fn slow(self) -> Self {
        Self { filter: "&minDuration=250ms", ..self }
    }

    /// Returns the URL of Jaeger's search page. Jaeger uses microseconds, Grafana milliseconds.
    fn url(self) -> String {
        let Self { service, operation, filter } = self;
        format!("${{jaeger:raw}}/search?service={service}{operation}{filter}&limit=20&start=${{__from}}000&end=${{__to}}000")
    }
}

impl Color {
    /// Returns Grafana's colour name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        }
    }
}
