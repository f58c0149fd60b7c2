//! Of which objects is each section of a world made? The objects sorted apart, and which sections are those of the world
//! before.

use std::collections::HashSet;
use std::sync::Arc;

use lateen_config::{Object, Spec};

use super::objects::{self, Objects};

/// The objects of each section.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub(crate) services: Section,
    pub(crate) endpoints: Section,
    pub(crate) ingresses: Section,
    pub(crate) virtual_services: Section,
    pub(crate) destination_rules: Section,
    pub(crate) gateways: Section,
    pub(crate) sidecars: Section,
    pub(crate) peer_authentications: Section,
    pub(crate) envoy_filters: Section,
    pub(crate) telemetries: Section,
    pub(crate) others: Section,
    /// All objects in the order in which they came: the address of each, and its section. A mesh has many, so an update
    /// looks at those alone that are new in this list.
    all: Arc<Vec<(usize, u8)>>,
}

/// Objects of which a section is made, sorted by age.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section(Arc<Vec<Arc<Object>>>);

impl Section {
    /// The same objects: the very same values.
    pub(crate) fn is(&self, other: &Section) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.len() == other.0.len() && self.0.iter().zip(&*other.0).all(|(a, b)| Arc::ptr_eq(a, b)))
    }

    /// All objects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.0.iter()
    }

    /// The objects by kind.
    pub(crate) fn objects(&self) -> Objects<'_> {
        Objects::build(self.0.iter())
    }

    fn build(mut objects: Vec<Arc<Object>>) -> Section {
        objects.sort_by(|a, b| objects::age(a).cmp(&objects::age(b)));
        Section(Arc::new(objects))
    }

    /// The same without some objects and with others.
    fn edit(&self, removed: &HashSet<usize>, added: Vec<Arc<Object>>) -> Section {
        let mut objects: Vec<Arc<Object>> =
            self.0.iter().filter(|object| !removed.contains(&Arc::as_ptr(object).addr())).cloned().collect();
        for object in added {
            let place = objects.partition_point(|known| objects::age(known) <= objects::age(&object));
            objects.insert(place, object);
        }
        Section(Arc::new(objects))
    }
}

/// Number of sections.
const SECTIONS: usize = 11;

/// Most objects by which a list may differ from the one before and still be taken as an edit of it.
const FEW: usize = 64;

/// The section that an object belongs to.
fn section_of(object: &Object) -> u8 {
    match &object.spec {
        Spec::Service(_) | Spec::ServiceEntry(_) | Spec::Namespace(_) => 0,
        Spec::Endpoints(_) | Spec::EndpointSlice(_) | Spec::Pod(_) | Spec::Node(_) | Spec::WorkloadEntry(_) => 1,
        Spec::Ingress(_) | Spec::IngressClass(_) => 2,
        Spec::VirtualService(_) => 3,
        Spec::DestinationRule(_) => 4,
        Spec::Gateway(_) => 5,
        Spec::Sidecar(_) => 6,
        Spec::PeerAuthentication(_) => 7,
        Spec::EnvoyFilter(_) => 8,
        Spec::Telemetry(_) => 9,
        _ => 10,
    }
}

impl Inputs {
    /// Sorts objects apart. Sections of which no object changed are those of `previous`.
    pub(crate) fn build(objects: &[Arc<Object>], previous: Option<&Inputs>) -> Inputs {
        if let Some(inputs) = previous.and_then(|previous| previous.edit(objects)) {
            return inputs;
        }
        let mut lists: [Vec<Arc<Object>>; SECTIONS] = Default::default();
        let mut all = Vec::with_capacity(objects.len());
        for object in objects {
            let section = section_of(object);
            all.push((Arc::as_ptr(object).addr(), section));
            if let Some(list) = lists.get_mut(usize::from(section)) {
                list.push(object.clone());
            }
        }
        Inputs::of_sections(lists.map(Section::build), all)
    }

    /// The inputs after an edit: what is before and behind it in the list of objects is the same. `None` when too much
    /// differs.
    fn edit(&self, objects: &[Arc<Object>]) -> Option<Inputs> {
        let known = |(object, (address, _)): (&Arc<Object>, &(usize, u8))| Arc::as_ptr(object).addr() == *address;
        let before = objects.iter().zip(&*self.all).take_while(|pair| known(*pair)).count();
        let rest = objects.len().min(self.all.len()) - before;
        let behind = objects.iter().rev().zip(self.all.iter().rev()).take(rest).take_while(|pair| known(*pair)).count();
        let old = self.all.get(before..self.all.len() - behind)?;
        let new = objects.get(before..objects.len() - behind)?;
        if old.len() + new.len() > FEW {
            return None;
        }
        let mut removed: [HashSet<usize>; SECTIONS] = Default::default();
        for (address, section) in old {
            removed.get_mut(usize::from(*section))?.insert(*address);
        }
        let mut added: [Vec<Arc<Object>>; SECTIONS] = Default::default();
        let mut middle = Vec::with_capacity(new.len());
        for object in new {
            let (address, section) = (Arc::as_ptr(object).addr(), section_of(object));
            middle.push((address, section));
            // An object that only moved in the list is still there.
            if !removed.get_mut(usize::from(section))?.remove(&address) {
                added.get_mut(usize::from(section))?.push(object.clone());
            }
        }
        let mut sections = self.sections();
        for (section, (removed, added)) in sections.iter_mut().zip(removed.iter().zip(added)) {
            if !removed.is_empty() || !added.is_empty() {
                *section = section.edit(removed, added);
            }
        }
        let mut all = Vec::with_capacity(objects.len());
        all.extend_from_slice(&self.all[..before]);
        all.extend(middle);
        all.extend_from_slice(&self.all[self.all.len() - behind..]);
        Some(Inputs::of_sections(sections, all))
    }

    fn sections(&self) -> [Section; SECTIONS] {
        [
            self.services.clone(),
            self.endpoints.clone(),
            self.ingresses.clone(),
            self.virtual_services.clone(),
            self.destination_rules.clone(),
            self.gateways.clone(),
            self.sidecars.clone(),
            self.peer_authentications.clone(),
            self.envoy_filters.clone(),
            self.telemetries.clone(),
            self.others.clone(),
        ]
    }

    fn of_sections(sections: [Section; SECTIONS], all: Vec<(usize, u8)>) -> Inputs {
        let [
            services,
            endpoints,
            ingresses,
            virtual_services,
            destination_rules,
            gateways,
            sidecars,
            peer_authentications,
            envoy_filters,
            telemetries,
            others,
        ] = sections;
        Inputs {
            services,
            endpoints,
            ingresses,
            virtual_services,
            destination_rules,
            gateways,
            sidecars,
            peer_authentications,
            envoy_filters,
            telemetries,
            others,
            all: Arc::new(all),
        }
    }
}
