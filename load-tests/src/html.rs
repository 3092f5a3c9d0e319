//! Markdown to HTML converter for reports: a self-contained page without scripts, fonts or network
//! access, in light and dark mode.
//!
//! Supports the Markdown subset of the reports: headings, tables, lists, paragraphs, `code`,
//! **bold**, fenced text.

use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light dark;--text:light-dark(#1f2328,#e6edf3);--ground:light-dark(#fff,#0d1117);--line:light-dark(#d1d9e0,#3d444d);\
--shade:light-dark(#f6f8fa,#151b23);--bad:light-dark(#b3261e,#ff7b72);--good:light-dark(#1a7f37,#3fb950)}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--text);background:var(--ground);max-width:75rem;margin:2rem auto;padding:0 1rem}\
h1,h2{line-height:1.2}h2{margin-top:2rem}.wide{overflow-x:auto}table{border-collapse:collapse}\
th,td{border:1px solid var(--line);padding:.3rem .6rem;vertical-align:top}thead th{background:var(--shade)}tbody tr:nth-child(even){background:var(--shade)}\
.right{text-align:right;font-variant-numeric:tabular-nums}code,pre{font-family:ui-monospace,monospace;font-size:.9em;background:var(--shade)}\
pre{padding:.6rem;overflow-x:auto}.bad{color:var(--bad);font-weight:bold}.good{color:var(--good)}";

/// Renders a Markdown report as HTML. The first heading becomes the title.
pub(crate) fn page(markdown: &str) -> String {
    let title = markdown.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or("Report");
    let mut body = String::new();
    let mut lines = markdown.lines().peekable();
    while let Some(line) = lines.next() {
        // Writing to a `String` cannot fail.
        if let Some(heading) = line.strip_prefix("# ") {
            let _ = writeln!(body, "<h1>{}</h1>", inline(heading));
        } else if let Some(heading) = line.strip_prefix("## ") {
            let _ = writeln!(body, "<h2>{}</h2>", inline(heading));
        } else if line.starts_with("```") {
            let inside: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("```")).map(escape).collect();
            let _ = writeln!(body, "<pre>{}</pre>", inside.join("\n"));
        } else if line.starts_with('|') {
            let mut rows = vec![line];
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                rows.push(row);
            }
            table(&mut body, &rows);
        } else if line.starts_with("- ") {
            let mut items = vec![line.trim_start_matches("- ").to_owned()];
            while let Some(continuation) = lines.next_if(|line| line.starts_with("- ") || line.starts_with("  ")) {
                match (continuation.strip_prefix("- "), items.last_mut()) {
                    (None, Some(last)) => *last = format!("{last} {}", continuation.trim()),
                    (item, _) => items.push(item.unwrap_or(continuation).to_owned()),
                }
            }
            let items: Vec<_> = items.iter().map(|item| format!("<li>{}</li>\n", inline(item))).collect();
            let _ = writeln!(body, "<ul>\n{}</ul>", items.concat());
        } else if !line.is_empty() {
            let mut text = line.to_owned();
            while let Some(more) = lines.next_if(|line| !line.is_empty() && !line.starts_with(['|', '#']) && !line.starts_with("- ")) {
                text = format!("{text}\n{more}");
            }
            let _ = writeln!(body, "<p>{}</p>", inline(&text));
        }
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(title)
    )
}

/// Renders a table: heading, alignment row, rows.
fn table(body: &mut String, rows: &[&str]) {
    let right: Vec<bool> = rows.get(1).map(|row| cells(row).map(|cell| cell.ends_with(':')).collect()).unwrap_or_default();
    let row = |row: &str, tag: &str| {
        let cells = cells(row).enumerate().map(|(column, cell)| {
            let mut classes = Vec::new();
            if right.get(column) == Some(&true) {
                classes.push("right");
            }
            match cell {
                "yes" => classes.push("good"),
                "**NO**" | "no" => classes.push("bad"),
                _ => {}
            }
            let class = if classes.is_empty() { String::new() } else { format!(" class=\"{}\"", classes.join(" ")) };
            format!("<{tag}{class}>{}</{tag}>", inline(cell))
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let head = rows.first().map(|head| row(head, "th")).unwrap_or_default();
    let rest: String = rows.iter().skip(2).map(|rest| row(rest, "td")).collect();
    let _ = writeln!(body, "<div class=\"wide\"><table>\n<thead>{head}</thead>\n<tbody>\n{rest}</tbody>\n</table></div>");
}

fn cells(row: &str) -> impl Iterator<Item = &str> {
    row.trim().trim_start_matches('|').trim_end_matches('|').split('|').map(str::trim)
}

fn inline(text: &str) -> String {
    let between = |text: &str, mark: &str, tag: &str| {
        let parts = text.split(mark).enumerate();
        parts.map(|(place, part)| if place % 2 == 1 { format!("<{tag}>{part}</{tag}>") } else { part.to_owned() }).collect::<String>()
    };
    // An unpaired mark is kept unchanged.
    let paired = |text: &str, mark: &str, tag: &str| {
        if text.matches(mark).count().is_multiple_of(2) { between(text, mark, tag) } else { text.to_owned() }
    };
    let text = escape(text);
    paired(&paired(&text, "`", "code"), "**", "strong")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_a_self_contained_page() {
        let report = "# smoke: FAILED\n\n- crossed: `checks rate==1`\n- and one\n  over two lines\n\nSome <words>\n\n| what | how many |\n|---|---:|\n\
                      | a & b | 3 |\n| c | **NO** |\n\n## More\n\n```\n**raw** <b>\n```\n";
        let page = page(report);
        for part in [
            "<title>smoke: FAILED</title>",
            "<h1>smoke: FAILED</h1>",
            "<li>crossed: <code>checks rate==1</code></li>",
            "<li>and one over two lines</li>",
            "<p>Some &lt;words&gt;</p>",
            "<thead><tr><th>what</th><th class=\"right\">how many</th></tr>",
            "<td>a &amp; b</td><td class=\"right\">3</td>",
            "<td class=\"right bad\"><strong>NO</strong></td>",
            "<h2>More</h2>",
            "<pre>**raw** &lt;b&gt;</pre>",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        for outside in ["<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
