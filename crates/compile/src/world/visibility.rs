//! Who may see an object? `exportTo` of Services, ServiceEntries, VirtualServices and DestinationRules.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The namespaces to which an object is visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visibility {
    everywhere: bool,
    namespaces: BTreeSet<Arc<str>>,
}

impl Visibility {
    /// Reads `exportTo`: `*` everybody (whatever else is listed), `.` the object's own namespace, `~` nobody,
    /// anything else a namespace. An empty list stands for the mesh's default.
    pub(crate) fn build(export_to: &[String], default: &[String], own: &Arc<str>) -> Visibility {
        let export_to = if export_to.is_empty() { default } else { export_to };
        Visibility {
            everywhere: export_to.iter().any(|entry| entry == "*"),
            namespaces: export_to
                .iter()
                .filter(|entry| !matches!(entry.as_str(), "*" | "~" | ""))
                .map(|entry| if entry == "." { own.clone() } else { Arc::from(entry.as_str()) })
                .collect(),
        }
    }

    /// For every namespace.
    pub(crate) fn everywhere() -> Visibility {
        Visibility { everywhere: true, namespaces: BTreeSet::new() }
    }

    /// True when objects and proxies of `namespace` see it.
    pub fn includes(&self, namespace: &str) -> bool {
        self.everywhere || self.namespaces.contains(namespace)
    }

    /// True when every namespace sees it.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.everywhere
    }

    /// True when no namespace but `own` sees it, and `own` does.
    pub(crate) fn is_private_to(&self, own: &str) -> bool {
        !self.everywhere && self.namespaces.len() == 1 && self.namespaces.contains(own)
    }

    /// True when some namespace other than `own` sees it.
    pub(crate) fn leaves(&self, own: &str) -> bool {
        self.everywhere || self.namespaces.iter().any(|namespace| &**namespace != own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visibility(export_to: &[&str]) -> Visibility {
        let export_to: Vec<String> = export_to.iter().map(|entry| entry.to_string()).collect();
        Visibility::build(&export_to, &["*".to_owned()], &"shop".into())
    }

    #[test]
    fn nothing_listed_means_the_default_of_the_mesh() {
        assert!(visibility(&[]).includes("other"));
    }

    #[test]
    fn a_dot_is_the_own_namespace() {
        let private = visibility(&["."]);
        assert!(private.includes("shop") && !private.includes("other"));
        assert!(private.is_private_to("shop"));
    }

    #[test]
    fn a_listed_namespace_does_not_include_the_own_one() {
        let exported = visibility(&["other"]);
        assert!(exported.includes("other") && !exported.includes("shop"));
        assert!(exported.leaves("shop"));
    }

    #[test]
    fn a_tilde_is_nobody() {
        let hidden = visibility(&["~"]);
        assert!(!hidden.includes("shop") && !hidden.leaves("shop"));
    }
}
