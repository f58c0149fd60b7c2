//! How do the Envoy messages come to be Rust types? From the descriptor set in `proto/`, without `protoc`.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use prost::Message as _;
use prost_types::FileDescriptorSet;

const DESCRIPTOR_SET: &str = "proto/envoy.binpb";

/// Packages that only annotate other messages' fields: reflection reads them, no code names their types.
const ANNOTATION_PACKAGES: [&str; 5] = [
    "validate",
    "udpa.annotations",
    "xds.annotations.v3",
    "envoy.annotations",
    "google.api",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DESCRIPTOR_SET}");
    println!("cargo::rerun-if-changed=build.rs");
    let manifest_dir = env::var("CARGO_MANIFEST_DIR")?;
    let encoded = fs::read(Path::new(&manifest_dir).join(DESCRIPTOR_SET))?;
    let mut descriptors = FileDescriptorSet::decode(encoded.as_slice())?;
    descriptors
        .file
        .retain(|file| !ANNOTATION_PACKAGES.contains(&file.package()));

    prost_build::Config::new()
        // Ordered maps: equal content encodes to equal bytes, which versions (content hashes) rest upon.
        .btree_map(["."])
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .disable_comments(["."])
        .include_file("messages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
