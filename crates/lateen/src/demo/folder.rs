//! Which files is the demo routed by? Copies of `examples/bookstore`, in a folder that the user may edit.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::app::Workload;

/// The file that the user is invited to edit.
pub(crate) const ROUTES: &str = "routes.yaml";
/// The file that says where the workloads are; it follows the ports that they got.
const WORKLOADS: &str = "workloads.yaml";
/// The files, as they are in `examples/bookstore`.
const FILES: [(&str, &str); 5] = [
    ("gateway.yaml", include_str!("../../../../examples/bookstore/gateway.yaml")),
    (ROUTES, include_str!("../../../../examples/bookstore/routes.yaml")),
    ("services.yaml", include_str!("../../../../examples/bookstore/services.yaml")),
    ("subsets.yaml", include_str!("../../../../examples/bookstore/subsets.yaml")),
    (WORKLOADS, include_str!("../../../../examples/bookstore/workloads.yaml")),
];

/// The folder of a running demo.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Files that were there already with other content, by name: edits of an earlier run, which stay.
    pub(crate) kept: Vec<&'static str>,
}

impl Folder {
    /// Makes the folder and the files that are missing. What is there stays, except for the places of the workloads.
    ///
    /// # Errors
    /// The folder or a file cannot be made or read.
    pub(crate) fn prepare(path: &Path, ports: &[(Workload, u16)]) -> anyhow::Result<Self> {
        let way_out = "choose another folder with --folder";
        fs::create_dir_all(path).with_context(|| format!("cannot make {}; {way_out}", path.display()))?;
        let mut kept = Vec::new();
        for (name, text) in FILES {
            let file = path.join(name);
            let text = if name == WORKLOADS { with_ports(text, ports) } else { text.to_owned() };
            match fs::read(&file) {
                Ok(there) if there == text.as_bytes() => continue,
                Ok(_) if name != WORKLOADS => {
                    kept.push(name);
                    continue;
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}; {way_out}", file.display()));
                }
            }
            fs::write(&file, text).with_context(|| format!("cannot write {}; {way_out}", file.display()))?;
        }
        Ok(Self { path: path.to_owned(), kept })
    }

    /// The file to edit.
    pub(crate) fn routes(&self) -> PathBuf {
        self.path.join(ROUTES)
    }
}

/// The places of the workloads with the ports that they got.
fn with_ports(text: &str, ports: &[(Workload, u16)]) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let moved = ports.iter().find_map(|(workload, port)| {
            let usual = port_field(workload.usual_port());
            line.contains(&usual).then(|| line.replace(&usual, &port_field(*port)))
        });
        out.push_str(moved.as_deref().unwrap_or(line));
        out.push('\n');
    }
    out
}

fn port_field(port: u16) -> String {
    format!("{{http: {port}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(first: u16) -> Vec<(Workload, u16)> {
        Workload::ALL.into_iter().zip(first..).collect()
    }

    #[test]
    fn every_workload_has_its_entry_in_the_example() {
        let (_, text) = FILES[4];
        for workload in Workload::ALL {
            let entry = text.split("---").find(|entry| entry.contains(&format!("name: {}\n", workload.name())));
            let entry = entry.unwrap_or_else(|| panic!("no WorkloadEntry {}", workload.name()));
            assert!(entry.contains(&port_field(workload.usual_port())), "{entry}");
        }
        let usual: Vec<_> = Workload::ALL.into_iter().map(|workload| (workload, workload.usual_port())).collect();
        assert_eq!(with_ports(text, &usual), text);
    }

    #[test]
    fn places_follow_the_ports_even_when_one_gets_the_usual_port_of_another() {
        let (_, text) = FILES[4];
        let moved = with_ports(text, &ports(9082));
        for (workload, port) in ports(9082) {
            let entry = moved.split("---").find(|entry| entry.contains(workload.name())).unwrap();
            assert!(entry.contains(&port_field(port)), "{entry}");
        }
    }

    #[test]
    fn edits_of_an_earlier_run_stay_and_places_are_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("demo");
        let first = Folder::prepare(&path, &ports(20_000)).unwrap();
        assert!(first.kept.is_empty());
        fs::write(first.routes(), "# mine\n").unwrap();
        let second = Folder::prepare(&path, &ports(30_000)).unwrap();
        assert_eq!(second.kept, [ROUTES]);
        assert_eq!(fs::read_to_string(second.routes()).unwrap(), "# mine\n");
        let workloads = fs::read_to_string(path.join(WORKLOADS)).unwrap();
        assert!(workloads.contains("{http: 30000}") && !workloads.contains("20000"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let error = Folder::prepare(&path.join("demo"), &ports(1000)).unwrap_err();
        assert!(format!("{error:#}").contains("--folder"), "{error:#}");
    }
}
