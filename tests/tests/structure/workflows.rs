//! Workflows of the CI: the packages that they install, in a dry run of `tests/install.sh`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{files, text};

/// Packages that only `make performance` needs.
const PERFORMANCE: [&str; 2] = ["wrk", "strace"];

/// Packages of `tests/packages.txt`.
fn packages() -> Vec<String> {
    let list = text("tests/packages.txt");
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once('|').unwrap().0.to_owned()).collect()
}

/// Runs `tests/install.sh` as user `id` on a machine without any package. `apt-get` writes its
/// arguments to standard output.
fn install(mode: &str, id: u32) -> Output {
    let machine = TempDir::new().unwrap();
    let (tests, bin) = (machine.path().join("tests"), machine.path().join("bin"));
    for folder in [&tests, &bin, &machine.path().join("root")] {
        fs::create_dir(folder).unwrap();
    }
    for file in ["install.sh", "packages.txt"] {
        fs::copy(crate::root().join("tests").join(file), tests.join(file)).unwrap();
    }
    let program = |name: &str, script: &str| {
        fs::write(bin.join(name), script).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("id", &format!("#!/bin/sh\necho {id}\n"));
    // The script discards standard output.
    program("apt-get", "#!/bin/sh\necho apt-get \"$@\" >&2\n");
    for name in ["sh", "cat", "dirname", "fold", "grep", "ls"] {
        let found = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|path| path.exists());
        symlink(found.unwrap_or_else(|| panic!("{name} is missing")), bin.join(name)).unwrap();
    }
    let mut command = Command::new(tests.join("install.sh"));
    command.arg(mode).env_clear().env("PATH", &bin).env("INSTALL_ROOT", machine.path().join("root"));
    command.output().unwrap()
}

#[test]
fn install_script_installs_every_package_as_root() {
    for (mode, packages) in
        [("packages", packages().into_iter().filter(|name| !PERFORMANCE.contains(&name.as_str())).collect()), ("performance", packages())]
    {
        let packages: Vec<_> = packages;
        let output = install(mode, 0);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        let installed = text.lines().find_map(|line| line.strip_prefix("apt-get install ")).unwrap();
        let installed: Vec<_> = installed.split(' ').filter(|word| !word.starts_with('-')).collect();
        assert_eq!(installed, packages, "{mode}");
    }
}

#[test]
fn install_script_lists_every_package_to_other_users() {
    let output = install("all", 1_000);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && !text.contains("\napt-get"), "{text}");
    let line = text.lines().find(|line| line.contains("sudo apt-get install")).unwrap();
    for package in packages().iter().filter(|name| !PERFORMANCE.contains(&name.as_str())) {
        assert!(line.split(' ').any(|word| word == package), "{package}: {line}");
    }
}

#[test]
fn workflows_install_packages_by_the_script_only() {
    let workflows = files(".github", "yml");
    assert!(workflows.len() >= 3, "{workflows:?}");
    for file in &workflows {
        assert!(!text(file).contains("apt-get install"), "{file} has a package list of its own");
    }
    // The runner's user is not root: the packages come first, by sudo.
    let setup = text(".github/actions/setup/action.yml");
    let (packages, tools) = (setup.find("sudo tests/install.sh packages").unwrap(), setup.find("make tools").unwrap());
    assert!(packages < tools, "{setup}");
    for file in ["ci.yml", "nightly.yml"] {
        assert!(text(&format!(".github/workflows/{file}")).contains("uses: ./.github/actions/setup"), "{file}");
    }
}
