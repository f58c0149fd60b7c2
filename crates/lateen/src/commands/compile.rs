//! `lateen compile`: print the Envoy configuration that YAML means.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use lateen_compile::{Capability, Interception, Scope, World};
use lateen_config::{Diagnostic, ParseOptions, SourceFile};
use lateen_control::{Files, Settings, mesh};
use lateen_xds::bootstrap::{BootstrapOptions, static_bootstrap};
use lateen_xds::envoy::config::core::v3::Node;
use lateen_xds::{Part, Resource, XdsSet};
use serde_json::{Value, json};

use super::local_scope;
use crate::arguments::{
    BuildArgument, CompileArguments, InterceptionArgument, OutputArgument, RoleArgument, Switchable,
};
use crate::commands::note_no_files;
use crate::report;

/// Compiles and prints. Exit code 1 when the files have errors; what could be compiled is printed all the same.
pub(crate) fn run(arguments: CompileArguments) -> anyhow::Result<ExitCode> {
    let files = Files::new(arguments.sources.files.clone());
    let mut sources = Vec::new();
    for path in files.stamps()?.keys() {
        sources.push(Files::read(path)?);
    }
    if sources.is_empty() {
        note_no_files();
    }
    let namespace = &arguments.sources.namespace;
    let options = ParseOptions { default_namespace: namespace.as_str().into() };
    let parsed = lateen_config::load_with(&sources, &options);
    let mut diagnostics = parsed.diagnostics;
    let objects: Vec<_> = parsed.objects.into_iter().filter(|object| !object.has_errors).map(Arc::new).collect();
    let local = local_scope(namespace, &arguments.labels, &arguments.binding, arguments.http_proxy_port.clone().on());
    let mut scope: Scope = match arguments.role {
        RoleArgument::Gateway => local.gateway.clone(),
        RoleArgument::Sidecar => {
            let mut scope = local.sidecar.clone();
            scope.labels = Some(arguments.labels.iter().cloned().collect());
            scope
        }
    };
    scope.addresses.extend(arguments.proxy_ip);
    if arguments.role == RoleArgument::Sidecar {
        scope.interception = match arguments.interception {
            InterceptionArgument::None => Interception::None,
            InterceptionArgument::Redirect => Interception::Redirect,
            InterceptionArgument::Tproxy => Interception::TransparentProxy,
        };
    }
    scope.capability = match (arguments.build, arguments.output) {
        (Some(BuildArgument::Lateen), _) | (None, OutputArgument::Xds) => Capability::Native,
        (Some(BuildArgument::Envoy), _) | (None, OutputArgument::EnvoyBootstrap) => Capability::UpstreamEnvoy,
        (Some(BuildArgument::IstioProxy), _) => Capability::IstioProxy,
    };
    let settings = Settings {
        namespace: namespace.as_str().into(),
        scope: local,
        access_log: arguments.access_log.clone().map(Switchable::on),
        default_access_log: None,
    };
    let (mesh, problems) = mesh(&objects, &settings);
    diagnostics.extend(problems);
    let world = World::build(objects, mesh);
    diagnostics.extend(world.diagnostics().iter().cloned());
    let (set, said) = lateen_compile::compile_and_report(&world, &scope);
    diagnostics.extend(said);
    let output = match arguments.output {
        OutputArgument::Xds => render(&set)?,
        OutputArgument::EnvoyBootstrap => {
            let role = match arguments.role {
                RoleArgument::Gateway => "router",
                RoleArgument::Sidecar => "sidecar",
            };
            let node = Node {
                id: format!("{role}~127.0.0.1~lateen.{namespace}~{namespace}.svc.cluster.local"),
                cluster: format!("lateen.{namespace}"),
                ..Node::default()
            };
            static_bootstrap(&set, &BootstrapOptions { admin: Some(arguments.admin), node })?
        }
    };
    complain(&diagnostics, &sources);
    let mut text = serde_json::to_string_pretty(&output)?;
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(if diagnostics.iter().any(Diagnostic::is_error) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn complain(diagnostics: &[Diagnostic], sources: &[Arc<SourceFile>]) {
    report::diagnostics(diagnostics, |path| sources.iter().find(|source| *source.path == *path).cloned());
}

/// All resources by type and name, with version and origins.
fn render(set: &XdsSet) -> anyhow::Result<Value> {
    Ok(json!({
        "listeners": set.listeners.values().map(resource).collect::<anyhow::Result<Vec<_>>>()?,
        "routes": set.routes.values().map(resource).collect::<anyhow::Result<Vec<_>>>()?,
        "clusters": set.clusters.values().map(resource).collect::<anyhow::Result<Vec<_>>>()?,
        "endpoints": set.endpoints.values().map(resource).collect::<anyhow::Result<Vec<_>>>()?,
    }))
}

fn resource<M: lateen_xds::ResourceMessage>(resource: &Resource<M>) -> anyhow::Result<Value> {
    let origins: Vec<_> = resource
        .origins
        .iter()
        .map(|(part, origin)| {
            json!({
                "part": match part {
                    Part::Whole => String::new(),
                    Part::FilterChain(chain) => format!("filter_chains[{chain}]"),
                    Part::VirtualHost(host) => format!("virtual_hosts[{host}]"),
                    Part::Route { virtual_host, route } => format!("virtual_hosts[{virtual_host}].routes[{route}]"),
                },
                "kind": &*origin.kind,
                "namespace": &*origin.namespace,
                "name": &*origin.name,
                "rule": origin.rule,
                "file": origin.file.as_deref(),
                "line": origin.line,
            })
        })
        .collect();
    Ok(json!({
        "version": resource.version.to_string(),
        "resource": lateen_xds::json::render(&*resource.message)?,
        "origins": origins,
    }))
}
