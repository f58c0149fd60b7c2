//! Where does a patched part come from? From where it came before, and from the patch.

use lateen_xds::{Origin, Part, Resource};

use super::About;

/// The origins of exactly one part of a resource.
pub(super) fn of<M>(resource: &Resource<M>, part: Part) -> Vec<Origin> {
    resource.origins_of(part).cloned().collect()
}

/// Adds a patch to the origins of a part. A part without origins of its own had those of the part around it, and still
/// has them.
pub(super) fn add(own: &mut Vec<Origin>, around: &[Origin], about: &About) {
    if own.is_empty() {
        own.extend_from_slice(around);
    }
    if !own.contains(&about.origin) {
        own.push(about.origin.clone());
    }
}

/// The origins of a part as a resource has them.
pub(super) fn at(part: Part, origins: Vec<Origin>) -> impl Iterator<Item = (Part, Origin)> {
    origins.into_iter().map(move |origin| (part, origin))
}
