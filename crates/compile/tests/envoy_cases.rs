//! Does real Envoy take what is compiled from configurations as people write them: the examples, the guide, and the
//! scenarios of Istio's simulation?
//!
//! The guide and the scenarios are files beside the checkout (`../shared`, or the folder above the one that
//! `LATEEN_CASES` names); without them there is nothing to check, and neither is without an Envoy binary.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod mesh;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lateen_compile::{Capability, Interception, Mesh, Scope, World, compile};
use lateen_config::{MeshConfig, SourceFile};
use mesh::*;
use serde_json::Value;

fn shared() -> PathBuf {
    std::env::var_os("LATEEN_CASES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        |cases| PathBuf::from(cases).join(".."),
    )
}

/// A gateway, a sidecar that is addressed and one behind redirection, all of them Envoy as its own project builds it.
fn scopes(namespace: &str, labels: &BTreeMap<String, String>) -> [(&'static str, Scope); 3] {
    let sidecar = Scope::sidecar(namespace, labels.clone());
    [
        (
            "gateway",
            Scope { labels: Some(labels.clone()).filter(|labels| !labels.is_empty()), ..Scope::gateway(namespace) },
        ),
        ("addressed", Scope { http_proxy_port: Some(15080), ..sidecar.clone() }),
        (
            "redirected",
            Scope { interception: Interception::Redirect, addresses: vec!["1.1.1.1".parse().unwrap()], ..sidecar },
        ),
    ]
}

/// What Envoy refuses of a world.
fn refusals(name: &str, world: &World, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<String> {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    scopes(namespace, labels)
        .into_iter()
        .filter_map(|(role, scope)| {
            let set = compile(world, &Scope { capability: Capability::UpstreamEnvoy, ..scope });
            envoy_refuses(&format!("{name}-{role}"), &set)
        })
        .collect()
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        eprintln!("nothing at {}", folder.display());
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn world_of(files: &[PathBuf]) -> World {
    let sources: Vec<Arc<SourceFile>> = files
        .iter()
        .map(|path| SourceFile::new(path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    let objects = lateen_config::load(&sources).objects;
    World::build(objects.into_iter().map(Into::into).collect(), Mesh::default())
}

#[test]
fn the_examples_are_accepted() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut refused = Vec::new();
    for example in std::fs::read_dir(examples).unwrap() {
        let example = example.unwrap().path();
        let name = example.file_name().unwrap().to_string_lossy().into_owned();
        refused.extend(refusals(&name, &world_of(&yaml_files(&example)), "default", &BTreeMap::new()));
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn the_guide_is_accepted_file_by_file_and_as_a_whole() {
    let files = yaml_files(&shared().join("guide"));
    let mut refused = Vec::new();
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        refused.extend(refusals(&name, &world_of(std::slice::from_ref(file)), "default", &BTreeMap::new()));
    }
    if !files.is_empty() {
        refused.extend(refusals("guide", &world_of(&files), "default", &BTreeMap::new()));
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn the_scenarios_of_the_simulation_are_accepted() {
    let Ok(text) = std::fs::read_to_string(shared().join("cases/simulation.json")) else {
        eprintln!("no scenarios");
        return;
    };
    let scenarios: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut refused = Vec::new();
    for scenario in &scenarios {
        let text = |key: &str| scenario[key].as_str().unwrap_or_default().to_owned();
        let sources =
            [SourceFile::new("config.yaml", text("config")), SourceFile::new("kube.yaml", text("kube_config"))];
        let mesh = scenario.get("mesh_config").map_or_else(MeshConfig::default, |config| {
            lateen_config::parse_mesh(&SourceFile::new("mesh.yaml", config.to_string())).0.unwrap()
        });
        let objects = lateen_config::load(&sources).objects;
        let world = World::build(objects.into_iter().map(Into::into).collect(), Mesh::from_config(&mesh));
        let proxy = &scenario["proxy"];
        let labels = proxy["labels"].as_object().into_iter().flatten();
        let labels = labels.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect();
        let namespace = proxy["namespace"].as_str().unwrap();
        refused.extend(refusals(scenario["name"].as_str().unwrap(), &world, namespace, &labels));
    }
    assert!(refused.is_empty(), "{} of {}:\n{}", refused.len(), scenarios.len() * 3, refused.join("\n"));
}
