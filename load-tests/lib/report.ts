// The end of every run: a summary that people can read, on the terminal and as Markdown.

import { settings } from "./settings.ts";

type Values = Record<string, number>;
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

/** A `handleSummary` for the scenario `name`; `more` adds lines of its own. */
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
    const crossed = Object.entries(data.metrics).flatMap(([metric, { thresholds }]) =>
        Object.entries(thresholds ?? {}).filter(([, { ok }]) => !ok).map(([rule]) => `${metric} ${rule}`),
    );
    const seconds = data.state.testRunDurationMs / 1000;
    return [
        `# ${name}: ${crossed.length === 0 ? "passed" : "FAILED"}`,
        "",
        ...crossed.map((rule) => `- crossed: \`${rule}\``),
        ...(crossed.length > 0 ? [""] : []),
        `${count(data, "iterations")} iterations in ${seconds.toFixed(0)} s, ${count(data, "http_reqs")} requests ` +
            `(${(count(data, "http_reqs") / seconds).toFixed(0)} a second), ${count(data, "unexpected_answers")} unexpected answers, ` +
            `${(100 * (data.metrics["refused"]?.values["rate"] ?? 0)).toFixed(1)} % refused for protection, ` +
            `${count(data, "dropped_iterations")} iterations not started in time, ` +
            `${count(data, "invariants_broken")} invariants broken of ${count(data, "invariants_checked")} checks.`,
        "",
        "| requests | median | p95 | p99 | longest |",
        "|---|---:|---:|---:|---:|",
        ...Object.entries(data.metrics).filter(([metric]) => /^(http_req|grpc_req)_duration(\{name:.*\})?$/.test(metric)).map(row),
        "",
        ...more,
    ];
}

function row([metric, { values }]: [string, Metric]): string {
    const name = /\{name:(.*)\}/.exec(metric)?.[1] ?? (metric.startsWith("grpc") ? "all gRPC calls" : "all HTTP requests");
    const ms = (key: string) => `${(values[key] ?? 0).toFixed(1)} ms`;
    return `| ${name} | ${ms("med")} | ${ms("p(95)")} | ${ms("p(99)")} | ${ms("max")} |`;
}

/** How often something was counted. */
export function count(data: Data, metric: string): number {
    return data.metrics[metric]?.values["count"] ?? 0;
}

/** The statistics that the reports and the thresholds need. */
export const summaryTrendStats = ["avg", "min", "med", "max", "p(90)", "p(95)", "p(99)"];
