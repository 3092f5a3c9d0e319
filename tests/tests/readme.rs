//! The tour in README.md works as it stands: every `sh` block under a `<!-- tour -->` line, in order, in one bash.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{env, fs, path::Path, process::Command};

use palisade_tests::{Shop, process::program};

/// The commands of the tour.
fn tour() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    readme.split("<!-- tour -->\n```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0).collect()
}

#[tokio::test]
async fn the_tour_works_as_written() {
    let shop = Shop::shared();
    shop.ready().await;
    // Only the ports differ from what a reader types: those of this shop are not the default ones.
    let addresses = [
        ("localhost:3000", shop.url()),
        ("localhost:9464", shop.admin_url("gateway")),
        ("localhost:9465", shop.admin_url("products")),
        ("localhost:9466", shop.admin_url("orders")),
    ];
    let script = addresses.iter().fold(tour(), |script, (written, real)| script.replace(written, real));
    assert!(script.contains("curl"), "README.md has no tour");
    let programs = program("palisade").parent().unwrap().to_owned();
    let path = env::join_paths([programs].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap()))).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &script]).env("PATH", path).env("PALISADE_DATA_DIR", shop.directory());
    let output = bash.current_dir(shop.directory()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told = [
        ("\"status\":\"CONFIRMED\"", 1),
        ("\"total\":49,", 2),
        ("\"quantity\":8,", 1),
        ("\"status\":\"CANCELLED\"", 1),
        ("\"code\":\"insufficient_stock\"", 1),
        ("\"ready\":true", 1),
        ("\"violations\":[]", 2),
    ];
    for (words, times) in told {
        assert_eq!(said.matches(words).count(), times, "{words} in:\n{said}");
    }
}
