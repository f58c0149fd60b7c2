//! Which piece of the user's configuration did a piece of an Envoy resource come from?

use std::fmt;
use std::sync::Arc;

/// The configuration object, and the rule in it, that caused a part of a resource.
///
/// Displays as `VirtualService default/reviews http[0] (shop.yaml:14)`; parts that are empty or unknown are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Kind of the object, for example `VirtualService`.
    pub kind: Arc<str>,
    /// Namespace of the object; empty for objects without one.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
    /// Path of the rule within the object, for example `http[0]`; empty when the whole object is meant.
    pub rule: String,
    /// File that the object was read from, if it came from one.
    pub file: Option<Arc<str>>,
    /// 1-based line in that file; 0 when unknown.
    pub line: u32,
}

/// The part of a resource that an [`Origin`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The resource itself.
    Whole,
    /// `Listener.filter_chains[index]`.
    FilterChain(usize),
    /// `RouteConfiguration.virtual_hosts[index]`.
    VirtualHost(usize),
    /// `RouteConfiguration.virtual_hosts[virtual_host].routes[route]`.
    Route {
        /// Index of the virtual host.
        virtual_host: usize,
        /// Index of the route in that virtual host.
        route: usize,
    },
}

impl Part {
    /// The next larger part that contains this one; `None` for the whole.
    pub fn parent(self) -> Option<Part> {
        match self {
            Part::Whole => None,
            Part::FilterChain(_) | Part::VirtualHost(_) => Some(Part::Whole),
            Part::Route { virtual_host, .. } => Some(Part::VirtualHost(virtual_host)),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)?;
        if !self.rule.is_empty() {
            write!(f, " {}", self.rule)?;
        }
        match (&self.file, self.line) {
            (None, _) => Ok(()),
            (Some(file), 0) => write!(f, " ({file})"),
            (Some(file), line) => write!(f, " ({file}:{line})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews() -> Origin {
        Origin {
            kind: "VirtualService".into(),
            namespace: "default".into(),
            name: "reviews".into(),
            rule: "http[0]".into(),
            file: Some("shop.yaml".into()),
            line: 14,
        }
    }

    #[test]
    fn displays_object_rule_and_place() {
        assert_eq!(reviews().to_string(), "VirtualService default/reviews http[0] (shop.yaml:14)");
    }

    #[test]
    fn displays_only_what_is_known() {
        let whole = Origin { rule: String::new(), line: 0, ..reviews() };
        assert_eq!(whole.to_string(), "VirtualService default/reviews (shop.yaml)");
        let built_in = Origin { namespace: "".into(), file: None, ..whole };
        assert_eq!(built_in.to_string(), "VirtualService reviews");
    }

    #[test]
    fn parts_nest() {
        let route = Part::Route { virtual_host: 2, route: 5 };
        assert_eq!(route.parent(), Some(Part::VirtualHost(2)));
        assert_eq!(Part::VirtualHost(2).parent(), Some(Part::Whole));
        assert_eq!(Part::Whole.parent(), None);
    }
}
