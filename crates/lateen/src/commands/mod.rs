//! One file per command: arguments in, exit code out.

mod compile;
mod demo;
mod explain;
pub(crate) mod run;
mod validate;

use std::process::ExitCode;

use lateen_compile::{Capability, Listen, LocalScope, PortMapping, Scope};

use crate::arguments::{Arguments, Binding, Command};
use crate::report;

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Compile(arguments) => compile::run(arguments),
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Explain(arguments) => explain::run(arguments),
    }
}

/// Says that the folders that the user named hold nothing to read: it is hardly what was meant.
fn note_no_files() {
    report::attention("there is no file to read: folders are searched for names that end in .yaml, .yml or .json");
}

/// Where the listeners of a gateway and of a sidecar bind.
fn listen(binding: &Binding) -> (Listen, Listen) {
    let ports = match (binding.port_offset, binding.bind) {
        (Some(offset), _) => PortMapping::Offset(offset),
        (None, Some(bind)) if bind.free_ports => PortMapping::Ephemeral,
        (None, _) => PortMapping::AsIs,
    };
    let gateway = Listen { bind: binding.bind.map(|bind| bind.address), ports };
    // The mesh is for this machine alone, whatever address the gateway has.
    (gateway, Listen { bind: None, ports })
}

/// Gateway and sidecar of one process.
pub(crate) fn local_scope(
    namespace: &str,
    labels: &[(String, String)],
    binding: &Binding,
    http_proxy_port: Option<u16>,
) -> LocalScope {
    let (gateway_listen, sidecar_listen) = listen(binding);
    let mut gateway = Scope::gateway(namespace);
    gateway.labels = (!labels.is_empty()).then(|| labels.iter().cloned().collect());
    gateway.listen = gateway_listen;
    let mut sidecar = Scope::sidecar(namespace, std::collections::BTreeMap::new());
    sidecar.listen = sidecar_listen;
    sidecar.http_proxy_port = http_proxy_port;
    gateway.capability = Capability::Native;
    sidecar.capability = Capability::Native;
    LocalScope { gateway, sidecar }
}
