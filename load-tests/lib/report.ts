// Report of a run, on the terminal and as Markdown.

import { settings } from "./settings.ts";

type Values = Record<string, number>;
/** Values that a threshold compares: `p(99)<1000` of a trend, `count==0` of a counter. */
const RULE = /^([a-z]+(?:\(\d+\))?)(?:<|>|=)/;

interface Metric {
    type: string;
    contains: string;
    values: Values;
    thresholds?: Record<string, { ok: boolean }>;
}
export interface Data {
    metrics: Record<string, Metric>;
    state: { testRunDurationMs: number };
}

/** Returns a `handleSummary` for the scenario `name`. `more` adds lines to the report. */
export function report(name: string, more: (data: Data) => string[] = () => []) {
    return (data: Data): Record<string, string> => {
        const text = lines(name, data, more(data)).join("\n") + "\n";
        const files: Record<string, string> = { stdout: `\n${text}` };
        if (settings.reports) {
            files[`${settings.reports}/${name}.md`] = text;
            files[`${settings.reports}/${name}.json`] = JSON.stringify(data, null, 2);
        }
        return files;
    };
}

function lines(name: string, data: Data, more: string[]): string[] {
    const failed = Object.entries(data.metrics).flatMap(([metric, { thresholds }]) =>
        Object.entries(thresholds ?? {}).filter(([, { ok }]) => !ok).map(([rule]) => `${metric} ${rule}`),
    );
    const seconds = data.state.testRunDurationMs / 1000;
    return [
        `# ${name}: ${failed.length === 0 ? "passed" : "FAILED"}`,
        "",
        ...failed.map((rule) => `- failed threshold: \`${rule}\``),
        ...(failed.length > 0 ? [""] : []),
        `${count(data, "iterations")} iterations in ${seconds.toFixed(0)} s, ${count(data, "http_reqs")} requests ` +
            `(${(count(data, "http_reqs") / seconds).toFixed(0)}/s), ${count(data, "unexpected_responses")} unexpected responses, ` +
            `${(100 * (data.metrics["rejected"]?.values["rate"] ?? 0)).toFixed(1)} % rejected, ` +
            `${count(data, "dropped_iterations")} iterations not started in time, ` +
            `${count(data, "invariant_violations")} invariant violations in ${count(data, "invariant_checks")} checks.`,
        "",
        "| requests | median | p95 | p99 | max |",
        "|---|---:|---:|---:|---:|",
        ...Object.entries(data.metrics).filter(([metric]) => /^(http_req|grpc_req)_duration(\{name:.*\})?$/.test(metric)).map(row),
        "",
        ...more,
        ...outcomes(data),
        ...thresholds(data),
    ];
}

/** Table of the requests by route and outcome, and of the refusals by reason. */
function outcomes(data: Data): string[] {
    const seen = Object.entries(data.metrics).flatMap(([metric, { values }]) => {
        const [, name, outcome] = /^outcome_duration\{(?:name:(.*),)?outcome:(.*)\}$/.exec(metric) ?? [];
        return outcome && (values["count"] ?? 0) > 0 ? [{ name, outcome, values }] : [];
    });
    seen.sort((a, b) => (`${a.name} ${a.outcome}` < `${b.name} ${b.outcome}` ? -1 : 1));
    const ms = (values: Values, key: string) => `${(values[key] ?? 0).toFixed(1)} ms`;
    const byRoute = seen.filter(({ name }) => name).map(({ name, outcome, values }) =>
        `| ${name} | ${outcome} | ${values["count"]} | ${ms(values, "med")} | ${ms(values, "p(95)")} | ${ms(values, "p(99)")} |`);
    const refusals = seen.filter(({ name, outcome }) => !name && !/^[23]/.test(outcome));
    const all = data.metrics["outcome_duration"]?.values["count"] ?? 0;
    return [
        ...(byRoute.length > 0 ? ["## Routes and outcomes", "", "| route | outcome | requests | median | p95 | p99 |", "|---|---|---:|---:|---:|---:|", ...byRoute, ""] : []),
        "## Refusals by reason",
        "",
        ...(refusals.length === 0 ? ["None."] : ["| reason | requests | share |", "|---|---:|---:|"]),
        ...refusals.map(({ outcome, values }) => `| ${outcome} | ${values["count"]} | ${((100 * values["count"]) / all).toFixed(2)} % |`),
        "",
    ];
}

/** Table of the thresholds with their measured values. Those that always hold only select metrics. */
function thresholds(data: Data): string[] {
    const rows = Object.entries(data.metrics).flatMap(([metric, { values, thresholds }]) =>
        Object.entries(thresholds ?? {}).filter(([rule]) => !rule.endsWith(">=0")).map(([rule, { ok }]) => {
            const measured = values[RULE.exec(rule)?.[1] ?? ""] ?? 0;
            return `| \`${metric}\` | \`${rule}\` | ${Number(measured.toFixed(3))} | ${ok ? "yes" : "**NO**"} |`;
        }));
    return ["## Thresholds", "", "| metric | threshold | measured | passed |", "|---|---|---:|---|", ...rows, ""];
}

function row([metric, { values }]: [string, Metric]): string {
    const name = /\{name:(.*)\}/.exec(metric)?.[1] ?? (metric.startsWith("grpc") ? "all gRPC calls" : "all HTTP requests");
    const ms = (key: string) => `${(values[key] ?? 0).toFixed(1)} ms`;
    return `| ${name} | ${ms("med")} | ${ms("p(95)")} | ${ms("p(99)")} | ${ms("max")} |`;
}

/** Returns the value of a counter. */
export function count(data: Data, metric: string): number {
    return data.metrics[metric]?.values["count"] ?? 0;
}

/** Options of all scenarios: statistics of reports and thresholds, time for setup and audit. */
export const commonOptions = {
    summaryTrendStats: ["count", "avg", "min", "med", "max", "p(90)", "p(95)", "p(99)"],
    setupTimeout: "2m",
    teardownTimeout: `${2 * settings.settleSeconds + 60}s`,
};
