//! What does a page say: which proxy, which YAML, which rows?
//!
//! A page names its proxy in a line `Proxy: gateway, port 80.` (or `sidecar`), configures it with the `yaml` fences, all
//! of them together in order, and asks in tables whose first column is `request`. Everything else is prose.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::row::{self, Cells, Row};

/// One page.
#[derive(Clone, Debug)]
pub struct Page {
    /// The file's name without `.md`.
    pub name: String,
    /// Which proxy is asked.
    pub role: Role,
    /// The port of the YAML whose listener is asked.
    pub port: u16,
    /// The configuration, with placeholders `${port:NAME}`.
    pub yaml: String,
    /// The rows in order.
    pub rows: Vec<Row>,
}

/// The kind of proxy that a page configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An ingress gateway.
    Gateway,
    /// A client's proxy in the mesh, in namespace `default`.
    Sidecar,
}

/// Files in the folder of the books that are not pages.
const NOT_PAGES: [&str; 2] = ["README.md", "allowed-differences.md"];

/// The folder of the books.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/books")
}

/// The names of all pages, without `.md`, sorted.
///
/// # Errors
/// When the folder cannot be read.
pub fn page_names() -> Result<Vec<String>> {
    let folder = folder();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix(".md")
            && !NOT_PAGES.contains(&name.as_str())
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Reads and parses one page.
///
/// # Errors
/// When the file cannot be read or the page is malformed; the message names file and line.
pub fn load(name: &str) -> Result<Page> {
    let path = folder().join(format!("{name}.md"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&path, &text)
}

/// Parses a page's text.
///
/// # Errors
/// When the page is malformed; the message names file and line.
pub fn parse(path: &Path, text: &str) -> Result<Page> {
    let mut proxy = None;
    let mut documents: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    let mut fence: Option<bool> = None;
    let mut columns: Option<Vec<String>> = None;
    for (index, line) in text.lines().enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let place = || format!("{}:{number}", path.display());
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None => {
                    let is_yaml = language.trim() == "yaml";
                    if is_yaml {
                        documents.push(String::new());
                    }
                    Some(is_yaml)
                }
            };
            continue;
        }
        if let Some(is_yaml) = fence {
            if let (true, Some(document)) = (is_yaml, documents.last_mut()) {
                document.push_str(line);
                document.push('\n');
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix("Proxy: ") {
            proxy = Some(parse_proxy(rest).with_context(place)?);
        }
        let Some(cells) = table_cells(line) else {
            columns = None;
            continue;
        };
        match &columns {
            None => columns = Some(cells.iter().map(|cell| cell.trim().to_owned()).collect()),
            Some(names) if names.first().is_some_and(|name| name == "request") => {
                if cells.iter().all(|cell| cell.trim().chars().all(|character| "-: ".contains(character))) {
                    continue;
                }
                let row = parse_row(number, names, &cells).with_context(place)?;
                rows.push(row);
            }
            Some(_) => {}
        }
    }
    let Some((role, port)) = proxy else { bail!("{}: no line `Proxy: …`", path.display()) };
    if rows.is_empty() {
        bail!("{}: no table with a `request` column", path.display());
    }
    Ok(Page {
        name: path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        role,
        port,
        yaml: documents.join("---\n"),
        rows,
    })
}

impl Page {
    /// The names of the backends that the YAML mentions.
    pub fn backends(&self) -> BTreeSet<String> {
        self.yaml.split("${port:").skip(1).filter_map(|rest| rest.split('}').next()).map(str::to_owned).collect()
    }

    /// The YAML with the backends' ports filled in.
    pub fn render_yaml(&self, ports: &BTreeMap<String, u16>) -> String {
        ports
            .iter()
            .fold(self.yaml.clone(), |yaml, (name, port)| yaml.replace(&format!("${{port:{name}}}"), &port.to_string()))
    }
}

fn parse_proxy(text: &str) -> Result<(Role, u16)> {
    let (role, rest) = text.trim().trim_end_matches('.').split_once(", port ").context("expected `ROLE, port N.`")?;
    let role = match role {
        "gateway" => Role::Gateway,
        "sidecar" => Role::Sidecar,
        other => bail!("`{other}` is neither `gateway` nor `sidecar`"),
    };
    Ok((role, rest.trim().parse().with_context(|| format!("`{rest}` is not a port"))?))
}

/// The cells of a table line, or `None` for any other line.
fn table_cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (index, byte) in inner.bytes().enumerate() {
        if byte == b'|' && !escaped {
            cells.push(&inner[start..index]);
            start = index + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    cells.push(&inner[start..]);
    Some(cells)
}

fn parse_row(number: u32, names: &[String], cells: &[&str]) -> Result<Row> {
    if cells.len() != names.len() {
        bail!("{} cells under {} columns", cells.len(), names.len());
    }
    let cell = |name: &str| names.iter().position(|column| column == name).map_or("", |index| cells[index]);
    let cells = Cells {
        request: cell("request"),
        response: cell("response"),
        backend: cell("backend"),
        log: cell("log"),
        envoy: cell("envoy"),
    };
    row::parse(number, cells).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# T\n\nProxy: gateway, port 80.\n\n```yaml\na: ${port:v1}\n```\ntext\n```yaml\nb: ${port:dead}\n\
        ```\n```text\nc: no\n```\n\n| request | response | backend |\n|---|---|---|\n| `GET a` | `200` | `v1` |\n\
        \n| field | why |\n|---|---|\n| x | `y` |\n";

    #[test]
    fn a_page_is_its_proxy_its_yaml_and_its_rows() {
        let page = parse(Path::new("t.md"), PAGE).unwrap();
        assert_eq!((page.role, page.port), (Role::Gateway, 80));
        assert_eq!(page.backends().into_iter().collect::<Vec<_>>(), ["dead", "v1"]);
        let ports = BTreeMap::from([("v1".to_owned(), 81), ("dead".to_owned(), 9)]);
        assert_eq!(page.render_yaml(&ports), "a: 81\n---\nb: 9\n");
        assert_eq!(page.rows.len(), 1);
        assert_eq!(page.rows[0].line, 18);
    }

    #[test]
    fn a_malformed_row_is_named_by_its_line() {
        let broken = PAGE.replace("| `GET a` | `200` |", "| `GET a` `@fly` | `200` |");
        let message = format!("{:#}", parse(Path::new("t.md"), &broken).unwrap_err());
        assert!(message.contains("t.md:18") && message.contains("@fly"), "{message}");
    }

    #[test]
    fn escaped_bars_do_not_split_cells() {
        assert_eq!(table_cells(r"| `a\|b` | c |").unwrap(), [r" `a\|b` ", " c "]);
        assert_eq!(table_cells("prose"), None);
    }
}
