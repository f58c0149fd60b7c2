//! Which rules never became part of this proxy's configuration, and why?

use lateen_xds::XdsSet;

use super::call::Call;
use super::explanation::Explanation;
use crate::scope::Scope;
use crate::world::World;

pub(crate) fn add(_set: &XdsSet, _world: &World, _scope: &Scope, _call: &Call, _explanation: &mut Explanation) {}
