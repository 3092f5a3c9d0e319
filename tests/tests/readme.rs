//! The tour in README.md works as it stands: every `sh` block under a `<!-- tour -->` line, in order, in one bash.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{env, fs, path::Path, process::Command};

use palisade_tests::{Shop, process::program, shop::ALL_SCOPES};

/// The commands of the tour. Its first one starts the shop and is the test's own business.
fn tour() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let blocks = readme.split("<!-- tour -->\n```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0);
    blocks
        .flat_map(str::lines)
        .filter(|line| !line.starts_with("cargo run --release") || line.contains(" -- "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn the_tour_works_as_written() {
    let shop = Shop::shared();
    shop.ready().await;
    let tour = tour();
    assert!(tour.contains("curl"), "README.md has no tour");
    // Only the address differs from what a reader types: the port of this shop is not the default one.
    let script = tour.replace("http://localhost:3000", &shop.url()).replace("http://127.0.0.1:3000", &shop.url());
    let programs = program("palisade").parent().unwrap().to_owned();
    let path = env::join_paths([programs].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap()))).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &script])
        .env("PATH", path)
        .env("TOKEN", shop.token("demo", ALL_SCOPES))
        .current_dir(shop.directory());
    let output = bash.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("problem+json") && !said.contains("/problems/"), "a step of the tour was refused:\n{said}");
}
