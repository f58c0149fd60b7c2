//! How do the Envoy messages come to be Rust types? From the descriptor set in `proto/`, without `protoc`.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

const DESCRIPTOR_SET: &str = "proto/envoy.binpb";

/// Packages that only annotate other messages' fields: reflection reads them, no code names their types.
const ANNOTATION_PACKAGES: [&str; 5] =
    ["validate", "udpa.annotations", "xds.annotations.v3", "envoy.annotations", "google.api"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DESCRIPTOR_SET}");
    println!("cargo::rerun-if-changed=build.rs");
    let manifest_dir = env::var("CARGO_MANIFEST_DIR")?;
    let encoded = fs::read(Path::new(&manifest_dir).join(DESCRIPTOR_SET))?;
    let mut descriptors = FileDescriptorSet::decode(encoded.as_slice())?;
    descriptors.file.retain(|file| !ANNOTATION_PACKAGES.contains(&file.package()));
    for file in &mut descriptors.file {
        file.message_type.iter_mut().for_each(allow_deprecated);
        file.enum_type.iter_mut().for_each(allow_deprecated_values);
    }

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

/// Takes away the marks of deprecated fields: Envoy tells its users not to write them, but a data plane has to read them
/// and a control plane has to speak to older Envoys, so the compiler's warnings would only be in the way.
fn allow_deprecated(message: &mut DescriptorProto) {
    for options in message.field.iter_mut().filter_map(|field| field.options.as_mut()) {
        options.deprecated = None;
    }
    if let Some(options) = &mut message.options {
        options.deprecated = None;
    }
    message.nested_type.iter_mut().for_each(allow_deprecated);
    message.enum_type.iter_mut().for_each(allow_deprecated_values);
}

fn allow_deprecated_values(enumeration: &mut EnumDescriptorProto) {
    for options in enumeration.value.iter_mut().filter_map(|value| value.options.as_mut()) {
        options.deprecated = None;
    }
    if let Some(options) = &mut enumeration.options {
        options.deprecated = None;
    }
}
