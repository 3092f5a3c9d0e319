//! The layers depend on few packages, whatever the rest of the workspace uses. No package has
//! unsafe code.

use std::{collections::BTreeSet, env, process::Command};

use super::{files, root, text};

/// Maximum number of packages of `palisade-resilience` with default features, itself and procedural
/// macros included.
const MAX_PACKAGES: usize = 60;

#[test]
fn resilience_depends_on_few_packages() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["tree", "--offline", "--locked", "--package", "palisade-resilience", "--edges", "normal"];
    let format = ["--no-dedupe", "--prefix", "none", "--format", "{p}"];
    let output = Command::new(cargo).args(arguments).args(format).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    // Name and version; the rest of a line says where the package comes from.
    let package = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let packages: BTreeSet<_> = tree.lines().filter(|line| !line.is_empty()).map(package).collect();
    assert!(packages.iter().any(|package| package.starts_with("tower ")), "{packages:?}");
    assert!(packages.len() <= MAX_PACKAGES, "{} packages: {packages:#?}", packages.len());
}

#[test]
fn every_package_forbids_unsafe_code() {
    assert!(text("Cargo.toml").contains("\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n"));
    let packages: Vec<_> = files("", "toml").into_iter().filter(|file| file.ends_with("/Cargo.toml")).collect();
    assert!(packages.len() >= 16, "{packages:?}");
    for package in packages {
        let inherits = text(&package).contains("\n[lints]\nworkspace = true\n");
        // The lints of the workspace are not for generated code.
        assert!(inherits || text(&package.replace("Cargo.toml", "src/lib.rs")).contains("#![forbid(unsafe_code)]"), "{package}");
    }
}
