//! Tour of README.md: every `sh` block below a `<!-- tour -->` line runs, in order, in one bash.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{fs, path::Path, process::Command};

use palisade_tests::{Shop, process::search_path, shop::ALL_SCOPES};

fn tour() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let blocks = readme.split("<!-- tour -->\n```sh\n").skip(1);
    let tour: String = blocks.map(|block| block.split_once("```").unwrap().0).collect();
    assert!(tour.contains("curl"), "README.md has no tour");
    tour
}

#[tokio::test]
async fn readme_tour_works() {
    let shop = Shop::all_in_one();
    let tour = tour();
    // Replaces the default ports by those of this shop.
    let mut script = tour.clone();
    let listeners = [
        ("3000", shop.url()),
        ("9464", shop.admin_url("gateway")),
        ("9465", shop.admin_url("products")),
        ("9466", shop.admin_url("orders")),
    ];
    for (port, url) in listeners {
        script = script.replace(&format!("localhost:{port}"), url.trim_start_matches("http://"));
    }
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &script]).current_dir(shop.directory());
    bash.env("PATH", search_path()).env("PALISADE_DATA_DIR", shop.directory()).env("TOKEN", shop.token("demo", ALL_SCOPES));
    let output = bash.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    for refusal in said.split("/problems/").skip(1) {
        let code = refusal.split('"').next().unwrap();
        assert!(tour.contains(code), "a step failed with `{code}`, which the tour does not mention:\n{said}");
    }
    assert!(!said.contains("\"ok\":false"), "{said}");
}
