//! The module graph of every crate has no cycle, and no source file is too long to read.

use std::collections::{BTreeMap, BTreeSet};

use super::{files, text};

/// Longest source file, lines.
const MAX_LINES: usize = 350;

/// Every `src` folder of the workspace.
fn crates() -> BTreeSet<String> {
    let sources = files("", "rs");
    sources.iter().filter_map(|file| Some(file[..file.find("/src/")? + 5].to_owned())).collect()
}

/// The code of a file: no comments, and nothing from its unit tests on.
fn code(text: &str) -> String {
    let end = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Modules that follow `crate::` in `code`, in paths and in groups.
fn uses(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let identifier = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(identifier(rest));
            continue;
        };
        let (mut depth, mut start) = (0_i32, true);
        for (at, c) in group.char_indices() {
            if start && !c.is_whitespace() && depth == 0 {
                found.insert(identifier(&group[at..]));
                start = false;
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                _ => {}
            }
        }
    }
    found
}

/// Which top-level module of the crate in `source` uses which others.
fn graph(source: &str) -> BTreeMap<String, BTreeSet<String>> {
    let module = |file: &str| {
        let first = file[source.len()..].split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    };
    let all = files(source, "rs");
    let modules: BTreeSet<_> = all.iter().map(|file| module(file)).filter(|name| name != "lib" && name != "main").collect();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in all.iter().filter(|file| !file.ends_with("tests.rs") && !file.contains("/tests/")) {
        let from = module(file);
        if modules.contains(&from) {
            let used = uses(&code(&text(file))).into_iter().filter(|used| *used != from && modules.contains(used)).collect::<Vec<_>>();
            graph.entry(from).or_default().extend(used);
        }
    }
    graph
}

/// A cycle of the graph, if it has one.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        graph: &'a BTreeMap<String, BTreeSet<String>>,
        at: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|seen| *seen == at) {
            return Some(path[start..].iter().chain([&at]).map(|name| (*name).to_owned()).collect());
        }
        if !done.insert(at) {
            return None;
        }
        path.push(at);
        let found = graph.get(at).into_iter().flatten().find_map(|next| visit(graph, next, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| visit(graph, start, &mut Vec::new(), &mut done))
}

#[test]
fn module_graphs_have_no_cycle() {
    let cycles: Vec<_> = crates().iter().filter_map(|source| Some(format!("{source}: {}", cycle(&graph(source))?.join(" -> ")))).collect();
    assert!(cycles.is_empty(), "module cycles:\n{}", cycles.join("\n"));
}

#[test]
fn cycle_check_finds_a_cycle() {
    let code = code("use crate::{b::{X, y}, c};\n// crate::d\nfn f() { crate::e::g() }\n");
    assert_eq!(uses(&code), ["b", "c", "e"].map(str::to_owned).into());
    let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    assert_eq!(cycle(&BTreeMap::from([edge("a", "b"), edge("b", "c")])), None);
    assert_eq!(cycle(&BTreeMap::from([edge("a", "b"), edge("b", "c"), edge("c", "b")])).unwrap(), ["b", "c", "b"]);
}

#[test]
fn source_files_are_short() {
    let long = crates().into_iter().flat_map(|source| files(&source, "rs")).filter_map(|file| {
        let lines = text(&file).lines().count();
        (lines > MAX_LINES).then(|| format!("{file}: {lines} lines"))
    });
    let long: Vec<_> = long.collect();
    assert!(long.is_empty(), "files of more than {MAX_LINES} lines:\n{}", long.join("\n"));
}
