//! Rebuilds the crate when a migration is added, because the crate embeds the migrations.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
