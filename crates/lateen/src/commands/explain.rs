//! `lateen explain`: where does a request go, and why? Answered from the files, nothing is sent.

mod question;
mod text;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use lateen_compile::explain::{Direction, explain};
use lateen_compile::{Interception, Mesh, Scope, World};
use lateen_config::{Diagnostic, ParseOptions, SourceFile};
use lateen_control::Files;

use self::question::{Question, Target, Workload};
use crate::arguments::{DirectionArgument, ExplainArguments, FormArgument, RoleArgument};
use crate::commands::note_no_files;
use crate::report;

/// Explains and prints. Files with errors are explained as far as they can be read.
pub(crate) fn run(arguments: ExplainArguments) -> anyhow::Result<ExitCode> {
    let question = match Question::parse(&arguments) {
        Ok(question) => question,
        Err(error) => {
            report::failure(&error.context("cannot ask this"));
            return Ok(ExitCode::from(2));
        }
    };
    let (world, sources, diagnostics) = read(&arguments)?;
    let errors: Vec<Diagnostic> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
    report::diagnostics(&errors, |path| sources.iter().find(|source| *source.path == *path).cloned());
    let namespace = arguments.sources.namespace.as_str();
    let is_located = arguments.proxy_ip.is_some() || arguments.address.is_some() || arguments.port.is_some();
    let workload = match arguments.direction {
        DirectionArgument::Inbound if !is_located => {
            Workload::of(&world, namespace, &question.target, &arguments.labels)
        }
        _ => None,
    };
    let scope = scope(&arguments, &world, &question.target, workload.as_ref());
    let call = question.call(&world, &scope, workload.as_ref());
    let set = lateen_compile::compile(&world, &scope);
    let explanation = explain(&set, &world, &scope, &call);
    let answer = match arguments.output {
        FormArgument::Json => format!("{}\n", serde_json::to_string_pretty(&explanation.to_json())?),
        FormArgument::Text => text::render(&question, &scope, &call, &explanation, &sources),
    };
    match report::answer(&answer) {
        // Whoever reads the first lines alone has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write to standard output")?,
    }
    Ok(if explanation.is_answered() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(arguments: &ExplainArguments) -> anyhow::Result<(World, Vec<Arc<SourceFile>>, Vec<Diagnostic>)> {
    let mut sources = Vec::new();
    for path in Files::new(arguments.sources.files.clone()).stamps()?.keys() {
        sources.push(Files::read(path)?);
    }
    if sources.is_empty() {
        note_no_files();
    }
    let options = ParseOptions { default_namespace: arguments.sources.namespace.as_str().into() };
    let parsed = lateen_config::load_with(&sources, &options);
    let mut diagnostics = parsed.diagnostics;
    let objects: Vec<_> = parsed.objects.into_iter().filter(|object| !object.has_errors).map(Arc::new).collect();
    let (mesh, problems) = match &arguments.mesh_config {
        Some(path) => {
            let file = Files::read(path)?;
            let (config, problems) = lateen_config::parse_mesh(&file);
            sources.push(file);
            (config.map(|config| Mesh::from_config(&config)).unwrap_or_default(), problems)
        }
        None => Mesh::from_objects(&objects),
    };
    diagnostics.extend(problems);
    Ok((World::build(objects, mesh), sources, diagnostics))
}

/// The proxy that is asked. Connections come to sidecars as in a cluster: redirected.
fn scope(arguments: &ExplainArguments, world: &World, target: &Target, workload: Option<&Workload>) -> Scope {
    let namespace = arguments.sources.namespace.as_str();
    let role = arguments.role.unwrap_or_else(|| {
        let inbound = arguments.direction == DirectionArgument::Inbound;
        if !inbound && question::is_for_gateway(world, namespace, target) {
            RoleArgument::Gateway
        } else {
            RoleArgument::Sidecar
        }
    });
    let of_workload = workload.map_or_else(|| Arc::from(namespace), |workload| workload.namespace.clone());
    let labels =
        workload.map_or_else(|| arguments.labels.iter().cloned().collect(), |workload| workload.labels.clone());
    let scope = match role {
        RoleArgument::Gateway => {
            Scope { labels: (!arguments.labels.is_empty()).then_some(labels), ..Scope::gateway(namespace) }
        }
        RoleArgument::Sidecar => Scope { interception: Interception::Redirect, ..Scope::sidecar(of_workload, labels) },
    };
    let address = workload.map(Workload::address).or(arguments.proxy_ip);
    Scope { addresses: address.into_iter().collect(), ..scope }
}

impl From<DirectionArgument> for Direction {
    fn from(argument: DirectionArgument) -> Self {
        match argument {
            DirectionArgument::Outbound => Direction::Outbound,
            DirectionArgument::Inbound => Direction::Inbound,
        }
    }
}
