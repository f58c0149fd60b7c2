//! What does compilation cost? A mesh of many services, each with ten endpoints, a VirtualService and a DestinationRule:
//! reading its YAML, building the world, compiling one sidecar, and what an edit of a single object costs then.
//!
//! Times are CPU time of the one thread, the median of several runs; memory is what the process held at most until the
//! first configuration was there.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use lateen_compile::{Compiler, Interception, Mesh, Scope, World};
use lateen_config::{Object, SourceFile};
use lateen_xds::XdsSet;
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: bench-compile [--services N[,N...]] [--ports N] [--runs N] [--json]

  --services N,…   sizes of the mesh (default 1000,2000,5000,10000)
  --ports N        ports over which the services are spread (default 10; 1 is one route table for all)
  --runs N         runs of which the median is shown (default 7)
  --json           numbers for programs, in milliseconds and MB";

/// Endpoints of each service.
const ENDPOINTS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let Some(options) = options else {
        say(USAGE);
        return Ok(());
    };
    if !options.json {
        say(&format!(
            "{:>9} {:>7} {:>9} {:>9} {:>9} {:>11} {:>11} {:>11} {:>9}",
            "services", "ports", "read", "world", "compile", "edit route", "edit rule", "edit pods", "peak"
        ));
    }
    let mut rows = Vec::new();
    for services in &options.services {
        let row = if options.child { measure(*services, &options)? } else { in_child(*services, &options)? };
        if !options.json {
            say(&row.to_string());
        }
        rows.push(row);
    }
    if options.json {
        let rows: Vec<String> = rows.iter().map(Row::json).collect();
        say(&format!("[{}]", rows.join(",\n ")));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a command that prints its results")]
fn say(text: &str) {
    println!("{text}");
}

struct Options {
    services: Vec<usize>,
    ports: usize,
    runs: usize,
    json: bool,
    /// This process is the one that measures.
    child: bool,
}

impl Options {
    /// `None` when help is asked for.
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, Box<dyn Error>> {
        let mut options =
            Options { services: vec![1000, 2000, 5000, 10_000], ports: 10, runs: 7, json: false, child: false };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n{USAGE}"));
            match argument.as_str() {
                "--services" => {
                    options.services = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--ports" => options.ports = value()?.parse::<usize>()?.max(1),
                "--runs" => options.runs = value()?.parse::<usize>()?.max(1),
                "--json" => options.json = true,
                "--child" => options.child = true,
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("unknown argument {other}\n{USAGE}").into()),
            }
        }
        Ok(Some(options))
    }
}

/// The costs for one size of the mesh.
struct Row {
    services: usize,
    ports: usize,
    read: Duration,
    world: Duration,
    compile: Duration,
    edit_route: Duration,
    edit_rule: Duration,
    edit_endpoints: Duration,
    peak_megabytes: f64,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |time: Duration| format!("{:.2} ms", milliseconds(time));
        write!(
            f,
            "{:>9} {:>7} {:>9} {:>9} {:>9} {:>11} {:>11} {:>11} {:>6.0} MB",
            self.services,
            self.ports,
            time(self.read),
            time(self.world),
            time(self.compile),
            time(self.edit_route),
            time(self.edit_rule),
            time(self.edit_endpoints),
            self.peak_megabytes
        )
    }
}

impl Row {
    fn json(&self) -> String {
        format!(
            "{{\"services\":{},\"ports\":{},\"read_ms\":{:.3},\"world_ms\":{:.3},\"compile_ms\":{:.3},\
             \"edit_route_ms\":{:.3},\"edit_rule_ms\":{:.3},\"edit_endpoints_ms\":{:.3},\"peak_mb\":{:.1}}}",
            self.services,
            self.ports,
            milliseconds(self.read),
            milliseconds(self.world),
            milliseconds(self.compile),
            milliseconds(self.edit_route),
            milliseconds(self.edit_rule),
            milliseconds(self.edit_endpoints),
            self.peak_megabytes
        )
    }

    fn parse(text: &str) -> Option<Row> {
        let number = |key: &str| -> Option<f64> {
            let (_, rest) = text.split_once(&format!("\"{key}\":"))?;
            rest.split([',', '}']).next()?.parse().ok()
        };
        let time = |key: &str| number(key).map(|milliseconds| Duration::from_secs_f64(milliseconds / 1000.0));
        Some(Row {
            services: number("services")? as usize,
            ports: number("ports")? as usize,
            read: time("read_ms")?,
            world: time("world_ms")?,
            compile: time("compile_ms")?,
            edit_route: time("edit_route_ms")?,
            edit_rule: time("edit_rule_ms")?,
            edit_endpoints: time("edit_endpoints_ms")?,
            peak_megabytes: number("peak_mb")?,
        })
    }
}

/// Measures in a process of its own, so that the peak of one size is not that of another. Its allocator keeps what was
/// freed: runs shall measure compilation, not how the kernel clears the same pages again.
fn in_child(services: usize, options: &Options) -> Result<Row, Box<dyn Error>> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .env("MIMALLOC_PURGE_DELAY", "-1")
        .args(["--child", "--json", "--services", &services.to_string()])
        .args(["--ports", &options.ports.to_string(), "--runs", &options.runs.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    Row::parse(&text).ok_or_else(|| format!("no measurement of {services} services: {text}").into())
}

fn measure(services: usize, options: &Options) -> Result<Row, Box<dyn Error>> {
    let text = mesh(services, options.ports);
    let mut read = Vec::new();
    let (objects, took) = timed(|| objects("mesh.yaml", &text));
    read.push(took);
    let objects = objects?;
    let scope = Scope { interception: Interception::Redirect, ..Scope::sidecar("default", Default::default()) };

    let mut world_times = Vec::new();
    let mut compile_times = Vec::new();
    let mut peak = None;
    for _ in 0..options.runs {
        let (world, took) = timed(|| World::build(objects.clone(), Mesh::default()));
        world_times.push(took);
        let mut compiler = Compiler::new(scope.clone());
        let (set, took) = timed(|| compiler.compile(&world));
        compile_times.push(took);
        check(&set, services)?;
        if peak.is_none() {
            peak = Some(peak_megabytes()?);
        }
    }

    let world = World::build(objects.clone(), Mesh::default());
    let mut session = Session { objects, world, compiler: Compiler::new(scope) };
    let mut edits = |make: fn(usize, usize, usize) -> String| -> Result<Duration, Box<dyn Error>> {
        let mut times = Vec::new();
        // The first edit after the start copies its route table; those after it are what a session is made of.
        for run in 0..=options.runs {
            times.push(session.edit(&make(services / 2, options.ports, run))?);
        }
        times.remove(0);
        Ok(median(times))
    };
    let edit_route = edits(|index, _, run| virtual_service(index, 5 + run))?;
    let edit_rule = edits(|index, _, run| destination_rule(index, 100 + run))?;
    let edit_endpoints = edits(|index, ports, run| workload(index, 0, ports, 200 + run))?;
    Ok(Row {
        services,
        ports: options.ports,
        read: median(read),
        world: median(world_times),
        compile: median(compile_times),
        edit_route,
        edit_rule,
        edit_endpoints,
        peak_megabytes: peak.unwrap_or_default(),
    })
}

/// A mesh that is edited.
struct Session {
    objects: Vec<Arc<Object>>,
    world: World,
    compiler: Compiler,
}

impl Session {
    /// Puts another text in the place of an object, and measures until the sidecar's configuration is there.
    fn edit(&mut self, text: &str) -> Result<Duration, Box<dyn Error>> {
        let object = objects("edit.yaml", text)?.pop().ok_or("no object")?;
        let place = self
            .objects
            .iter()
            .position(|known| known.kind == object.kind && known.metadata.name == object.metadata.name)
            .ok_or_else(|| format!("{object} is not in the mesh"))?;
        self.objects[place] = object;
        let before = self.compiler.compile(&self.world);
        let ((world, set), took) = timed(|| {
            let world = self.world.update(&self.objects, Mesh::default());
            let set = self.compiler.compile(&world);
            (world, set)
        });
        if set == before {
            return Err(format!("the edit changed nothing:\n{text}").into());
        }
        self.world = world;
        Ok(took)
    }
}

fn check(set: &XdsSet, services: usize) -> Result<(), Box<dyn Error>> {
    let endpoints: usize = set
        .endpoints
        .values()
        .flat_map(|assignment| &assignment.message.endpoints)
        .map(|locality| locality.lb_endpoints.len())
        .sum();
    // Each service has a cluster for all its endpoints, and one for each half of them.
    if set.clusters.len() < services * 3 || endpoints != services * ENDPOINTS * 2 {
        return Err(format!("{} clusters, {endpoints} endpoints", set.clusters.len()).into());
    }
    Ok(())
}

fn objects(path: &str, text: &str) -> Result<Vec<Arc<Object>>, Box<dyn Error>> {
    let parsed = lateen_config::load(&[SourceFile::new(path, text)]);
    match parsed.diagnostics.first() {
        Some(problem) => Err(problem.to_string().into()),
        None => Ok(parsed.objects.into_iter().map(Arc::new).collect()),
    }
}

fn mesh(services: usize, ports: usize) -> String {
    let mut text = String::new();
    for index in 0..services {
        text.push_str(&service(index, ports));
        for endpoint in 0..ENDPOINTS {
            text.push_str(&workload(index, endpoint, ports, endpoint));
        }
        text.push_str(&virtual_service(index, 1));
        text.push_str(&destination_rule(index, 10));
    }
    text
}

fn service(index: usize, ports: usize) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: service-{index}, namespace: default}}\nspec:\n  \
         clusterIP: 10.{}.{}.{}\n  selector: {{app: service-{index}}}\n  ports: [{{name: http, port: {}}}]\n",
        index / 62_500,
        index / 250 % 250,
        index % 250 + 1,
        8000 + index % ports
    )
}

fn workload(index: usize, endpoint: usize, ports: usize, host: usize) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: service-{index}-{endpoint}, \
         namespace: default}}\nspec:\n  address: 172.{}.{}.{host}\n  ports: {{http: {}}}\n  \
         labels: {{app: service-{index}, version: v{}}}\n",
        index / 250,
        index % 250,
        8000 + index % ports,
        endpoint % 2 + 1
    )
}

fn virtual_service(index: usize, timeout: usize) -> String {
    let mut text = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: service-{index}, namespace: \
         default}}\nspec:\n  hosts: [service-{index}]\n  http:\n"
    );
    let _ = write!(
        text,
        "  - match: [{{headers: {{end-user: {{exact: jason}}}}}}]\n    route: [{{destination: {{host: service-{index}, \
         subset: v2}}}}]\n  - timeout: {timeout}s\n    route:\n    - {{destination: {{host: service-{index}, subset: \
         v1}}, weight: 90}}\n    - {{destination: {{host: service-{index}, subset: v2}}, weight: 10}}\n"
    );
    text
}

fn destination_rule(index: usize, connections: usize) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: service-{index}, namespace: \
         default}}\nspec:\n  host: service-{index}\n  trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: \
         {connections}}}}}}}\n  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]\n"
    )
}

/// A result with the CPU time that this thread spent for it.
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let start = now();
    let result = run();
    (result, now().saturating_sub(start))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Most memory that the process held so far, in units of 10⁶ bytes.
fn peak_megabytes() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
