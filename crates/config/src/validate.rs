//! Is an object right, by itself? One file of rules for each kind.

use crate::diagnostic::Diagnostic;
use crate::node::Node;
use crate::object::Object;

/// What Istio refuses or warns of.
pub(crate) fn validate(_object: &Object, _root: &Node) -> Vec<Diagnostic> {
    Vec::new()
}
