//! Writes a measured table between its two marks in the README.

use std::fs;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

pub(crate) fn write(marker: &str, table: &str) {
    let (begin, end) = (format!("<!-- {marker} -->\n"), format!("<!-- /{marker} -->"));
    let readme = fs::read_to_string(README).expect("the README is there");
    let (before, rest) = readme.split_once(&begin).expect("it has the mark");
    let (_, after) = rest.split_once(&end).expect("and the second");
    fs::write(README, [before, &begin, table, &end, after].concat()).expect("the README can be written");
}
