//! Compiles the contracts with protox, which needs no installed `protoc`.

use std::{env, error::Error, fs, path::Path};

use prost::Message;

const FILES: [&str; 2] = ["palisade/products/v1/products_service.proto", "palisade/orders/v1/orders_service.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=palisade");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
