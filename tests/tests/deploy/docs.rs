//! Settings, links and make targets mentioned in the deployment and scaling docs exist.

use std::collections::BTreeSet;

use palisade_tests::{
    files::{read, repository},
    process::output_of,
    shop::SERVICES,
};

const PAGES: [&str; 2] = ["deploy/README.md", "docs/scaling.md"];

/// Returns the texts in backticks, except in code blocks.
fn quoted(page: &str) -> Vec<String> {
    let text = read(&repository().join(page));
    let prose: String = text.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn mentioned_settings_exist() {
    let help: String = SERVICES.iter().map(|service| output_of(service, &["--help-all"])).collect();
    let known = |name: &str| help.contains(&format!("[env: PALISADE_{}]", name.replace('.', "__").to_uppercase()));
    let is_setting = |word: &String| {
        let groups = ["store", "saga", "reservations", "server", "upstreams", "telemetry", "auth", "identity"];
        let plain = word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_' || letter == '.');
        plain && word.split_once('.').is_some_and(|(group, rest)| groups.contains(&group) && rest != "rs")
    };
    for page in PAGES {
        let settings: BTreeSet<_> = quoted(page).into_iter().filter(is_setting).collect();
        let unknown: Vec<_> = settings.iter().filter(|setting| !known(setting)).collect();
        assert!(unknown.is_empty(), "{page}: {unknown:?}");
        assert!(page != "docs/scaling.md" || settings.len() >= 8, "{page}: {settings:?}");
    }
}

#[test]
fn links_resolve() {
    for page in PAGES {
        let path = repository().join(page);
        let text = read(&path);
        let links = text.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0).filter(|link| !link.contains("://"));
        for link in links.filter(|link| !link.starts_with('#')) {
            let file = path.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(file.exists(), "{page} links to {link}");
        }
    }
}

#[test]
fn mentioned_make_targets_exist() {
    let makefile = read(&repository().join("Makefile"));
    for page in PAGES {
        for word in quoted(page).iter().filter_map(|quoted| quoted.strip_prefix("make ")) {
            let target = word.split(' ').next().unwrap();
            assert!(makefile.contains(&format!("\n{target}: ")), "{page}: make {target}");
        }
    }
}
