//! Documents: a heading for each topic that a reader searches for, working links, bounded lines.

use super::{files, root, text};

/// Longest line of prose in Markdown and in comments, characters.
const WIDTH: usize = 100;

/// Topics, each of which needs a heading in README.md or ARCHITECTURE.md, and their pages.
const TOPICS: [(&str, &str); 11] = [
    ("caching", "docs/caching.md"),
    ("load testing", "docs/load-testing.md"),
    ("fault injection", "docs/fault-injection.md"),
    ("service discovery", "docs/service-discovery.md"),
    ("mtls", "docs/security.md"),
    ("configuration", "docs/configuration.md"),
    ("rate limiting", "docs/resilience.md"),
    ("circuit break", "docs/resilience.md"),
    ("retr", "docs/resilience.md"),
    ("deadline", "docs/resilience.md"),
    ("saga", "ARCHITECTURE.md"),
];

/// Headings of a page in lower case.
fn headings(page: &str) -> Vec<String> {
    let mut fenced = false;
    let text = text(page);
    let lines = text.lines().filter(move |line| {
        fenced ^= line.starts_with("```");
        !fenced
    });
    lines.filter(|line| line.starts_with('#')).map(str::to_lowercase).collect()
}

#[test]
fn topics_have_a_heading_and_a_page() {
    let front: Vec<_> = ["README.md", "ARCHITECTURE.md"].into_iter().flat_map(headings).collect();
    for (topic, page) in TOPICS {
        if !["circuit break", "retr", "deadline", "saga"].contains(&topic) {
            assert!(front.iter().any(|heading| heading.contains(topic)), "no heading for {topic} in README.md or ARCHITECTURE.md");
        }
        assert!(headings(page).iter().any(|heading| heading.contains(topic)), "no heading for {topic} in {page}");
    }
}

#[test]
fn documents_are_in_the_readme() {
    let readme = text("README.md");
    let pages = files("docs", "md").into_iter().filter(|page| !page.starts_with("docs/runbooks/"));
    for page in pages {
        assert!(readme.contains(&format!("({page})")), "README.md has no link to {page}");
    }
}

#[test]
fn guarantees_name_existing_tests() {
    let page = text("docs/guarantees.md");
    let tests: Vec<_> = page.split("[`").skip(1).filter_map(|link| link.split(')').next()?.split_once("`](../")).collect();
    assert!(tests.len() > 50, "{} tests are named", tests.len());
    for (name, file) in tests {
        assert!(text(file).contains(&format!("fn {name}(")), "{file} has no test {name}");
    }
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| claim ")) {
        assert!(row.contains("[`"), "no test: {row}");
    }
}

#[test]
fn relative_links_lead_somewhere() {
    for page in files("", "md") {
        let text = text(&page);
        let folder = root().join(&page);
        let folder = folder.parent().unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(folder.join(target).exists(), "{page}: broken link {target}");
            }
        }
    }
}

#[test]
fn prose_lines_are_bounded() {
    let mut long = Vec::new();
    for page in files("", "md") {
        let mut fenced = false;
        for (number, line) in text(&page).lines().enumerate() {
            fenced ^= line.starts_with("```");
            // Tables, code, and lines that one link or path makes long cannot be wrapped.
            let free = fenced
                || line.starts_with('|')
                || line.starts_with("    ")
                || line.contains("](")
                || line.contains('`')
                || !line.trim().contains(' ');
            if !free && line.chars().count() > WIDTH {
                long.push(format!("{page}:{}", number + 1));
            }
        }
    }
    for file in files("", "rs") {
        for (number, line) in text(&file).lines().enumerate() {
            let comment = line.trim_start();
            let prose = comment.starts_with("// ") || comment.starts_with("/// ") || comment.starts_with("//! ");
            let free = comment.contains('|') || comment.contains("](") || comment.contains("://") || comment.contains("    ");
            // In doc examples code lines follow the width of code.
            let code = comment.ends_with([';', '{', '}', ',', ')']) && comment.contains(['(', '{', '=']);
            if prose && !free && !code && line.chars().count() > WIDTH {
                long.push(format!("{file}:{}", number + 1));
            }
        }
    }
    assert!(long.is_empty(), "prose lines of more than {WIDTH} characters:\n{}", long.join("\n"));
}
