//! What can be said on the command line?

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Istio's traffic management in one program: reads Istio YAML, carries the traffic.
#[derive(Debug, Parser)]
#[command(
    name = "lateen",
    version,
    about,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    /// What to log on standard error: error, warn, info, debug, trace or off, or a list such as
    /// info,lateen_proxy=debug [default: LATEEN_LOG, else warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve traffic by a folder of YAML: gateway and mesh in one process; edits take effect at once
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArguments),
    /// See it work: a small bookstore, routed by YAML that you can edit while it runs
    Demo(DemoArguments),
    /// Print the Envoy configuration that YAML means
    #[command(after_help = COMPILE_EXAMPLES)]
    Compile(CompileArguments),
    /// Check YAML, object by object, as Istio would
    #[command(after_help = VALIDATE_EXAMPLES)]
    Validate(ValidateArguments),
    /// Say where a request goes and why, without sending it
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArguments),
}

const RUN_EXAMPLES: &str = "Examples:
  lateen run -f shop/                          every Gateway port, and the mesh on loopback
  lateen run -f shop/ --port-offset 8000       Gateway port 80 becomes 8080: no root needed
  lateen run -f a.yaml -f b.yaml --bind 127.0.0.1
  curl -H 'Host: reviews' localhost:9080/      take part in the mesh by service port …
  http_proxy=http://localhost:15080 curl http://reviews:9080/   … or by the HTTP proxy port";

const COMPILE_EXAMPLES: &str = "Examples:
  lateen compile -f shop/ --as gateway                          xDS resources as JSON
  lateen compile -f shop/ --as sidecar --namespace shop
  lateen compile -f shop/ --as sidecar --interception redirect --proxy-ip 10.0.0.7 -l app=reviews
  lateen compile -f shop/ --as gateway -o envoy-bootstrap > envoy.json && envoy -c envoy.json";

const VALIDATE_EXAMPLES: &str = "Examples:
  lateen validate -f shop/                              every file of a folder
  lateen validate -f routes.yaml -n shop                objects that name no namespace are in `shop`
  kubectl get virtualservices -A -o yaml | lateen validate -f -
  lateen validate -f shop/ -o json                      one entry per object, for other programs

Exit code: 0 when everything is valid, 1 when something is not, 2 when something cannot be read.";
const EXPLAIN_EXAMPLES: &str = "Examples:
  lateen explain -f shop/ GET http://shop.example.com/cart      through the gateway that serves the host
  lateen explain -f shop/ GET http://reviews:9080/ -H 'end-user: jason'   from one service to another
  lateen explain -f shop/ --namespace shop --label app=web GET http://reviews/
  lateen explain -f shop/ tcp://10.0.0.1:3306                   a connection that is no HTTP
  lateen explain -f shop/ --direction inbound --label app=reviews --tls mtls GET http://reviews:9080/

Exit code: 0 when the request is answered by a cluster, a redirect or a fixed response, 1 when it is not, 2 for a
question that cannot be asked.";

/// Where the YAML is and how it is read.
#[derive(Args, Clone, Debug)]
pub(crate) struct Sources {
    /// YAML or JSON file, or folder of such files; may be given several times
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Namespace of the proxy, and of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
}

/// Where listeners bind.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Binding {
    /// Add this number to every listener port, so that ports below 1024 need no privileges
    #[arg(long, value_name = "NUMBER", conflicts_with = "bind")]
    pub(crate) port_offset: Option<u16>,
    /// Bind gateway listeners to this address instead of all addresses; `ADDRESS:0` picks free ports for all listeners
    #[arg(long, value_name = "ADDRESS[:0]")]
    pub(crate) bind: Option<Bind>,
}

/// An address to bind, perhaps with ports of the system's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    /// The address.
    pub(crate) address: IpAddr,
    /// Every listener gets any free port.
    pub(crate) free_ports: bool,
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self { address, free_ports: false });
        }
        match text.parse::<SocketAddr>() {
            Ok(socket) if socket.port() == 0 => Ok(Self { address: socket.ip(), free_ports: true }),
            Ok(_) => Err("the port can only be 0 (any free port); use --port-offset to move ports".into()),
            Err(_) => Err("expected an IP address, or one with `:0`".into()),
        }
    }
}

/// `lateen run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) sources: Sources,
    #[command(flatten)]
    pub(crate) binding: Binding,
    /// Label of the gateway: it then serves only Gateways whose selector matches; without any it serves all
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Loopback port that serves as HTTP proxy into the mesh
    #[arg(long, value_name = "PORT|off", default_value = "15080")]
    pub(crate) http_proxy_port: Switchable<u16>,
    /// Address of the admin interface
    #[arg(long, value_name = "ADDRESS:PORT|off", default_value = "127.0.0.1:15000")]
    pub(crate) admin: Switchable<SocketAddr>,
    /// Worker threads [default: one per core]
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) workers: Option<usize>,
    /// Access log file, in the mesh configuration's format [default: the mesh configuration's, else /dev/stdout]
    #[arg(long, value_name = "FILE|off")]
    pub(crate) access_log: Option<Switchable<String>>,
    /// How long running requests may take to end when the program stops
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub(crate) drain_time: Duration,
}

/// `lateen compile`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompileArguments {
    #[command(flatten)]
    pub(crate) sources: Sources,
    #[command(flatten)]
    pub(crate) binding: Binding,
    /// The part that the proxy plays
    #[arg(long = "as", value_name = "ROLE", value_enum)]
    pub(crate) role: RoleArgument,
    /// Label of the proxy's workload; a gateway without any serves all Gateways
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// How connections reach a sidecar
    #[arg(long, value_name = "HOW", value_enum, default_value_t = InterceptionArgument::None)]
    pub(crate) interception: InterceptionArgument,
    /// Address of the proxy's workload; its ports are those of the services that have it among their endpoints
    #[arg(long, value_name = "IP")]
    pub(crate) proxy_ip: Option<IpAddr>,
    /// Whose build of the data plane it is [default: lateen, and envoy for a bootstrap]
    #[arg(long, value_name = "BUILD", value_enum)]
    pub(crate) build: Option<BuildArgument>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = OutputArgument::Xds)]
    pub(crate) output: OutputArgument,
    /// Loopback port that serves as HTTP proxy into the mesh (sidecar)
    #[arg(long, value_name = "PORT|off", default_value = "off")]
    pub(crate) http_proxy_port: Switchable<u16>,
    /// Admin address in the bootstrap
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:15000")]
    pub(crate) admin: SocketAddr,
    /// Access log file, in the mesh configuration's format [default: the mesh configuration's]
    #[arg(long, value_name = "FILE|off")]
    pub(crate) access_log: Option<Switchable<String>>,
}

/// `lateen validate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ValidateArguments {
    /// YAML or JSON file, folder of such files, or `-` for standard input; may be given several times
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = FormArgument::Text)]
    pub(crate) output: FormArgument,
}

/// `lateen explain`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArguments {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// The part of the proxy that is asked [default: gateway if a Gateway serves the host, else sidecar]
    #[arg(long = "as", value_name = "ROLE", value_enum)]
    pub(crate) role: Option<RoleArgument>,
    /// Label of the proxy's workload; a gateway without any serves all Gateways
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Which way a sidecar sees the request
    #[arg(long, value_name = "WAY", value_enum, default_value_t = DirectionArgument::Outbound)]
    pub(crate) direction: DirectionArgument,
    /// Address that the client connects to [default: that of the URL or of its service]
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,
    /// Port that the client connects to [default: that of the URL]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) port: Option<u16>,
    /// What the client speaks [default: by the URL, else HTTP/1.1]
    #[arg(long, value_name = "PROTOCOL", value_enum)]
    pub(crate) protocol: Option<ProtocolArgument>,
    /// How the client begins; mtls is TLS with a certificate that the server trusts [default: by the URL]
    #[arg(long, value_name = "KIND", value_enum)]
    pub(crate) tls: Option<TlsArgument>,
    /// Server name of the TLS handshake [default: the host of the URL]
    #[arg(long, value_name = "NAME")]
    pub(crate) sni: Option<String>,
    /// Protocols that the TLS handshake offers [default: by the protocol; towards a sidecar with mtls, Istio's]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) alpn: Vec<String>,
    /// Address of the proxy's workload [default: towards a workload, the first one with the labels behind the service]
    #[arg(long, value_name = "IP")]
    pub(crate) proxy_ip: Option<IpAddr>,
    /// File with the mesh configuration [default: the ConfigMap `istio` among the objects]
    #[arg(long, value_name = "FILE")]
    pub(crate) mesh_config: Option<PathBuf>,
    /// Header of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Claim of the token that the request bears, dots in the name for nested ones; may be given several times
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = parse_label)]
    pub(crate) claims: Vec<(String, String)>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = FormArgument::Text)]
    pub(crate) output: FormArgument,
    /// Method and URL; the method may be left out (GET). `tcp://HOST:PORT` and `tls://HOST:PORT` are connections
    /// without HTTP
    #[arg(value_name = "METHOD URL", required = true, num_args = 1..=2)]
    pub(crate) request: Vec<String>,
}

/// Which way a request takes through a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DirectionArgument {
    /// From the workload to others
    Outbound,
    /// From others to the workload
    Inbound,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProtocolArgument {
    /// HTTP/1.1
    Http,
    /// HTTP/2
    Http2,
    /// Anything else
    Tcp,
}

/// How a client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsArgument {
    /// Without TLS
    Plaintext,
    /// With TLS
    Tls,
    /// With TLS and a certificate of its own
    Mtls,
}

/// `lateen demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArguments {
    /// Folder for the YAML, which you can edit while the demo runs; it is made when missing
    #[arg(long, value_name = "FOLDER", default_value = "lateen-demo")]
    pub(crate) folder: PathBuf,
    /// Port of the gateway, or the next one that is free; 0 takes any free ports for everything
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,
    /// End by itself after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Print lines instead of the live view, as without a terminal
    #[arg(long)]
    pub(crate) plain: bool,
}

/// The part that a proxy plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArgument {
    /// At the edge: the ports of Gateway objects
    Gateway,
    /// Beside a workload: the services of the mesh
    Sidecar,
}

/// How connections reach a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InterceptionArgument {
    /// Clients connect to it
    None,
    /// The network redirects them, as in a cluster
    Redirect,
    /// As `redirect`, and the workload sees the address of its client
    Tproxy,
}

/// Whose build of the data plane a proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BuildArgument {
    /// Lateen's own data plane
    Lateen,
    /// Envoy as its own project builds it
    Envoy,
    /// Envoy as Istio builds it, with Istio's filters
    IstioProxy,
}

/// Forms of compiled configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputArgument {
    /// xDS resources with their versions and origins
    Xds,
    /// A static bootstrap that real Envoy runs
    EnvoyBootstrap,
}

/// Forms of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormArgument {
    /// For people
    Text,
    /// For programs
    Json,
}

/// A setting that can be turned off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Switchable<T> {
    /// The setting.
    On(T),
    /// `off`.
    Off,
}

impl<T> Switchable<T> {
    /// The setting, unless it is off.
    pub(crate) fn on(self) -> Option<T> {
        match self {
            Self::On(value) => Some(value),
            Self::Off => None,
        }
    }
}

impl<T: FromStr> FromStr for Switchable<T>
where
    T::Err: std::fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::On).map_err(|error: T::Err| format!("{error} (`off` turns it off)"))
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, for example istio=ingress".into()),
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected NAME: VALUE, for example 'end-user: jason'".into()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|character: char| !(character.is_ascii_digit() || character == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit `{unit}`; use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "expected a number with a unit, for example 30s".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_bind_argument_takes_an_address_or_an_address_with_port_0() {
        assert_eq!("127.0.0.1".parse(), Ok(Bind { address: [127, 0, 0, 1].into(), free_ports: false }));
        assert_eq!("127.0.0.1:0".parse(), Ok(Bind { address: [127, 0, 0, 1].into(), free_ports: true }));
        assert_eq!("[::1]:0".parse(), Ok(Bind { address: "::1".parse().unwrap(), free_ports: true }));
        assert!("127.0.0.1:80".parse::<Bind>().unwrap_err().contains("--port-offset"));
        assert!("localhost".parse::<Bind>().is_err());
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert!(parse_duration("2 weeks").is_err());
        assert!(parse_duration("").is_err());
        assert!(parse_duration("99999999999999999999h").is_err());
    }
}
