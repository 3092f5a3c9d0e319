//! Writes a result table between its two markers in the README.

use std::fs;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

pub(crate) fn write(marker: &str, table: &str) {
    let (begin, end) = (format!("<!-- {marker} -->\n"), format!("<!-- /{marker} -->"));
    let readme = fs::read_to_string(README).expect("the README is readable");
    let (before, rest) = readme.split_once(&begin).expect("the README has the start marker");
    let (_, after) = rest.split_once(&end).expect("the README has the end marker");
    fs::write(README, [before, &begin, table, &end, after].concat()).expect("the README is writable");
}
