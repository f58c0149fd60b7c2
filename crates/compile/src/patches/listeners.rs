//! What do patches make of a listener? Its own patches, those of its listener filters, those of its filter chains, and
//! then the chains that are added; after all listeners, the listeners that are added.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::PatchContext;
use lateen_xds::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener, ListenerFilter};
use lateen_xds::merge::Lists;
use lateen_xds::{Origin, Part, Resource};

use super::filter_chains::{self, Outcome};
use super::filters;
use super::matching::{self, ListenerKey};
use super::positions::Filters;
use super::{Change, Lookup, Patch, Report, Selected, Table, extensions, merging, origins};

/// Resources of one type by name.
pub(crate) type Resources<M> = BTreeMap<Arc<str>, Resource<M>>;

/// What an application looks at besides the resource, and where it tells what happened.
pub(super) struct Pass<'a, 'l> {
    pub(super) table: &'a Table,
    pub(super) context: PatchContext,
    pub(super) lookup: &'a Lookup<'l>,
    pub(super) report: &'a mut Report,
}

/// A listener that is being changed: its message without the filter chains, and these with their origins.
struct Draft {
    message: Listener,
    whole: Vec<Origin>,
    chains: Vec<(FilterChain, Vec<Origin>)>,
    changed: bool,
}

impl Selected {
    /// A listener that was generated for `context`, as the patches leave it; `None` when one removes it.
    pub fn listener(
        &self,
        context: PatchContext,
        resource: &Resource<Listener>,
        lookup: &Lookup<'_>,
        report: &mut Report,
    ) -> Option<Resource<Listener>> {
        let key = ListenerKey::of(&resource.message);
        if !may_change(&self.table, context, &key) {
            return Some(resource.clone());
        }
        let mut draft = Draft::of(resource);
        let mut pass = Pass { table: &self.table, context, lookup, report };
        pass.listener(&mut draft, &key)?;
        Some(if draft.changed { draft.finish() } else { resource.clone() })
    }

    /// All listeners of a proxy, grouped by what they were generated for. Each group is patched, and followed by what
    /// patches add to it; of two listeners with one name the first stays.
    pub fn listeners(
        &self,
        groups: Vec<(PatchContext, Resources<Listener>)>,
        lookup: &Lookup<'_>,
        report: &mut Report,
    ) -> Resources<Listener> {
        let mut all = Resources::new();
        let contexts: Vec<PatchContext> = groups.iter().map(|(context, _)| *context).collect();
        for (context, listeners) in groups {
            for (name, resource) in listeners {
                if let Some(patched) = self.listener(context, &resource, lookup, report) {
                    all.entry(name).or_insert(patched);
                }
            }
        }
        self.add_listeners(&contexts, &mut all, report);
        all
    }

    /// Adds the listeners of patches to those that were generated for `contexts`.
    pub fn add_listeners(&self, contexts: &[PatchContext], all: &mut Resources<Listener>, report: &mut Report) {
        for patch in added(&self.table.listeners, contexts) {
            if let Change::Insert(value, _) = &patch.change {
                let mut message = value.clone();
                extensions::inline(&self.table, &mut message, report);
                insert_new(all, &patch.about, &value.name, message, "listener", report);
            }
        }
    }
}

/// The patches that add a resource in one of these contexts, each once for each of them.
pub(super) fn added<'t, M>(
    patches: &'t [Arc<Patch<M>>],
    contexts: &[PatchContext],
) -> impl Iterator<Item = &'t Arc<Patch<M>>> {
    contexts
        .iter()
        .flat_map(move |context| patches.iter().filter(move |patch| matching::adds_in(&patch.about, *context)))
}

/// Adds the resource of a patch, unless its name is taken.
pub(super) fn insert_new<M: prost::Message>(
    all: &mut Resources<M>,
    about: &super::About,
    name: &str,
    message: M,
    what: &str,
    report: &mut Report,
) {
    report.matched(about);
    match all.get(name) {
        None => {
            all.insert(name.into(), Resource::new(message, vec![(Part::Whole, about.origin.clone())]));
        }
        // A patch for several contexts adds one resource.
        Some(other) if other.origin(Part::Whole) == Some(&about.origin) => {}
        Some(_) => report.refused(about, "the proxy", &format!("there is a {what} `{name}` already")),
    }
}

/// False when no patch can touch the listener, which then need not be taken apart.
fn may_change(table: &Table, context: PatchContext, key: &ListenerKey) -> bool {
    fn any<M>(patches: &[Arc<Patch<M>>], context: PatchContext, key: &ListenerKey) -> bool {
        patches.iter().any(|patch| matching::in_context(&patch.about, context) && matching::listener(&patch.about, key))
    }
    any(&table.listeners, context, key)
        || any(&table.listener_filters, context, key)
        || any(&table.filter_chains, context, key)
        || any(&table.network_filters, context, key)
        || any(&table.http_filters, context, key)
        || !table.extensions.is_empty()
        || (context == PatchContext::SidecarInbound && table.changes_routes())
}

impl Table {
    /// True when there is a patch for a route configuration or something in it.
    pub(super) fn changes_routes(&self) -> bool {
        !(self.route_configurations.is_empty() && self.virtual_hosts.is_empty() && self.http_routes.is_empty())
    }
}

impl Draft {
    fn of(resource: &Resource<Listener>) -> Draft {
        let mut message = (*resource.message).clone();
        let chains = std::mem::take(&mut message.filter_chains);
        Draft {
            message,
            whole: origins::of(resource, Part::Whole),
            chains: chains
                .into_iter()
                .enumerate()
                .map(|(index, chain)| (chain, origins::of(resource, Part::FilterChain(index))))
                .collect(),
            changed: false,
        }
    }

    fn finish(mut self) -> Resource<Listener> {
        let mut all: Vec<(Part, Origin)> = origins::at(Part::Whole, self.whole).collect();
        for (index, (chain, own)) in self.chains.into_iter().enumerate() {
            self.message.filter_chains.push(chain);
            all.extend(origins::at(Part::FilterChain(index), own));
        }
        Resource::new(self.message, all)
    }

    fn note(&mut self, about: &super::About) {
        origins::add(&mut self.whole, &[], about);
        self.changed = true;
    }
}

impl Pass<'_, '_> {
    fn listener(&mut self, draft: &mut Draft, key: &ListenerKey) -> Option<()> {
        self.inline_routes(draft);
        for patch in for_listener(&self.table.listeners, self.context, key) {
            match &patch.change {
                Change::Remove => {
                    self.report.matched(&patch.about);
                    return None;
                }
                Change::Merge(value, lists) => self.merge(draft, key, &patch.about, value, *lists),
                Change::Insert(..) | Change::Replace(_) => {}
            }
        }
        self.listener_filters(draft, key);
        self.filter_chains(draft, key);
        for about in extensions::inline_in_filters(self.table, &mut draft.message.listener_filters, self.report) {
            draft.note(about);
        }
        Some(())
    }

    fn merge(
        &mut self,
        draft: &mut Draft,
        key: &ListenerKey,
        about: &super::About,
        value: &super::Value<Listener>,
        lists: Lists,
    ) {
        self.report.matched(about);
        let resource = format!("listener `{}`", key.name);
        match merging::message(&draft.message, value, lists) {
            Ok(merged) if merged.name != key.name => {
                self.report.refused(about, &resource, "a patch cannot give it another name");
            }
            Ok(mut merged) => {
                if lists == Lists::Replace && !value.message.filter_chains.is_empty() {
                    draft.chains.clear();
                }
                let chains = std::mem::take(&mut merged.filter_chains);
                draft.chains.extend(chains.into_iter().map(|chain| (chain, vec![about.origin.clone()])));
                draft.message = merged;
                draft.note(about);
            }
            Err(error) => self.report.refused(about, &resource, &error),
        }
    }

    fn listener_filters(&mut self, draft: &mut Draft, key: &ListenerKey) {
        let resource = format!("listener `{}`", key.name);
        for patch in for_listener(&self.table.listener_filters, self.context, key) {
            if !matches!(patch.change, Change::Merge(..)) {
                let mut filters = Filters {
                    list: &mut draft.message.listener_filters,
                    name: |filter: &ListenerFilter| &filter.name,
                    sound: |_| true,
                };
                if !filters.edit(&[patch], self.report, |_, _, _| {}).is_empty() {
                    draft.note(&patch.about);
                }
                continue;
            }
            let mut changed = false;
            for filter in &mut draft.message.listener_filters {
                changed |= filters::merge(patch, filter, &resource, self.report);
            }
            if changed {
                draft.note(&patch.about);
            }
        }
    }

    fn filter_chains(&mut self, draft: &mut Draft, key: &ListenerKey) {
        for (mut chain, mut own) in std::mem::take(&mut draft.chains) {
            match filter_chains::patch(self, key, &mut chain) {
                Outcome::Kept(applied) => {
                    for about in applied {
                        origins::add(&mut own, &draft.whole, about);
                        draft.changed = true;
                    }
                    draft.chains.push((chain, own));
                }
                Outcome::Removed(about) => draft.note(about),
            }
        }
        if let Some(mut chain) = draft.message.default_filter_chain.take() {
            match filter_chains::patch(self, key, &mut chain) {
                Outcome::Kept(applied) => {
                    draft.message.default_filter_chain = Some(chain);
                    for about in applied {
                        draft.note(about);
                    }
                }
                Outcome::Removed(about) => draft.note(about),
            }
        }
        for patch in for_listener(&self.table.filter_chains, self.context, key) {
            let Change::Insert(value, _) = &patch.change else {
                continue;
            };
            self.report.matched(&patch.about);
            let conditions =
                |chain: &FilterChain| -> FilterChainMatch { chain.filter_chain_match.clone().unwrap_or_default() };
            if let Some((other, _)) = draft.chains.iter().find(|(chain, _)| conditions(chain) == conditions(value)) {
                let why = format!("its filter chain `{}` is for the same connections", other.name);
                self.report.refused(&patch.about, &format!("listener `{}`", key.name), &why);
                continue;
            }
            draft.chains.push((value.clone(), vec![patch.about.origin.clone()]));
            draft.changed = true;
        }
        self.extensions_of_chains(draft);
    }

    fn extensions_of_chains(&mut self, draft: &mut Draft) {
        for (chain, own) in &mut draft.chains {
            for about in extensions::inline_in_chain(self.table, chain, self.report) {
                origins::add(own, &draft.whole, about);
                draft.changed = true;
            }
        }
        if let Some(chain) = &mut draft.message.default_filter_chain {
            for about in extensions::inline_in_chain(self.table, chain, self.report) {
                origins::add(&mut draft.whole, &[], about);
                draft.changed = true;
            }
        }
    }

    /// Route configurations that stand in a listener are patched before it, as those are that stand for themselves.
    fn inline_routes(&mut self, draft: &mut Draft) {
        if self.context != PatchContext::SidecarInbound || !self.table.changes_routes() {
            return;
        }
        for (chain, own) in &mut draft.chains {
            for about in filter_chains::patch_inline_routes(self, chain) {
                origins::add(own, &draft.whole, about);
                draft.changed = true;
            }
        }
        if let Some(chain) = &mut draft.message.default_filter_chain {
            for about in filter_chains::patch_inline_routes(self, chain) {
                origins::add(&mut draft.whole, &[], about);
                draft.changed = true;
            }
        }
    }
}

/// Patches for a listener, or for something in it.
fn for_listener<'t, M>(
    patches: &'t [Arc<Patch<M>>],
    context: PatchContext,
    key: &ListenerKey,
) -> impl Iterator<Item = &'t Arc<Patch<M>>> {
    patches
        .iter()
        .filter(move |patch| matching::in_context(&patch.about, context) && matching::listener(&patch.about, key))
}
