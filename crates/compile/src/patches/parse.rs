//! What does an EnvoyFilter say? Its patches with their values as Envoy messages, and what is wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{
    ApplyTo, Diagnostic, EnvoyConfigObjectPatch, EnvoyFilter, ListenerMatch, Object, ObjectTypes, Operation,
    PatchContext, ProxyMatch,
};
use lateen_xds::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use lateen_xds::merge::Lists;
use lateen_xds::{Origin, any, re2};
use regex::bytes::{Regex, RegexBuilder};

use super::value::{self, Patched};
use super::{About, Change, Patch, Patches, Place, ProxyCondition, Table, Target, Value, code};
use crate::world::origin_of_rule;

/// Something that Istio knows and that is not compiled.
const NOT_COMPILED: &str = "LTN0101";

/// Longest regular expression for versions, and largest size to which one may be compiled.
const REGEX_LENGTH: usize = 1024;
const REGEX_SIZE: usize = 1 << 20;

/// Reads EnvoyFilters one after the other.
pub(super) struct Parser<'a> {
    root_namespace: &'a str,
    table: Table,
    findings: Vec<Diagnostic>,
    next_id: usize,
}

/// The EnvoyFilter that a patch belongs to.
struct Filter<'a> {
    object: &'a Arc<Object>,
    namespace: Option<Arc<str>>,
    selector: Arc<BTreeMap<String, String>>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(root_namespace: &'a str) -> Parser<'a> {
        Parser { root_namespace, table: Table::default(), findings: Vec::new(), next_id: 0 }
    }

    pub(super) fn filter(&mut self, object: &Arc<Object>, spec: &EnvoyFilter) {
        if !spec.target_refs.is_empty() {
            let finding = Diagnostic::warning(NOT_COMPILED, "`targetRefs` of an EnvoyFilter are not compiled yet")
                .help("choose the workloads with `workloadSelector`");
            self.push(object, "spec.targetRefs", finding);
            return;
        }
        let namespace = &object.metadata.namespace;
        let filter = Filter {
            object,
            namespace: (**namespace != *self.root_namespace).then(|| namespace.clone()),
            selector: Arc::new(spec.workload_selector.as_ref().map(|all| all.labels.clone()).unwrap_or_default()),
        };
        for (index, patch) in spec.config_patches.iter().enumerate() {
            self.patch(&filter, &format!("spec.configPatches[{index}]"), index, patch);
        }
    }

    /// The patches, once every EnvoyFilter is read.
    pub(super) fn finish(mut self) -> Patches {
        self.behind_router();
        self.extensions_without_configuration();
        Patches { table: self.table, diagnostics: self.findings }
    }

    fn patch(&mut self, filter: &Filter<'_>, path: &str, index: usize, spec: &EnvoyConfigObjectPatch) {
        let object = filter.object;
        let Some(target) = self.target(object, path, spec) else {
            return;
        };
        let context = spec.r#match.as_ref().map(|all| all.context).unwrap_or_default();
        let proxy = spec.r#match.as_ref().and_then(|all| all.proxy.as_ref());
        let Some(proxy) = self.proxy(object, path, proxy) else {
            return;
        };
        let origin: Origin = (*origin_of_rule(object, format!("configPatches[{index}]"), spec.at)).clone();
        let about = About {
            id: self.next_id,
            apply_to: spec.apply_to,
            object: object.clone(),
            at: spec.at,
            path: path.to_owned(),
            origin,
            namespace: filter.namespace.clone(),
            selector: filter.selector.clone(),
            proxy,
            context,
            element: element(spec.apply_to, &target),
            target,
            lands_behind_router: false,
        };
        self.next_id += 1;
        macro_rules! add {
            ($list:ident) => {
                if let Some(change) = self.change(&about, spec) {
                    self.table.$list.push(Arc::new(Patch { about, change }));
                }
            };
        }
        match spec.apply_to {
            ApplyTo::Listener => add!(listeners),
            ApplyTo::ListenerFilter => add!(listener_filters),
            ApplyTo::FilterChain => add!(filter_chains),
            ApplyTo::NetworkFilter => add!(network_filters),
            ApplyTo::HttpFilter => add!(http_filters),
            ApplyTo::RouteConfiguration => add!(route_configurations),
            ApplyTo::VirtualHost => add!(virtual_hosts),
            ApplyTo::HttpRoute => add!(http_routes),
            ApplyTo::Cluster => add!(clusters),
            ApplyTo::ExtensionConfig => add!(extensions),
            ApplyTo::Bootstrap => {
                let finding = Diagnostic::warning(NOT_COMPILED, "patches of the bootstrap are not compiled")
                    .help("they count where the bootstrap of a proxy is written; change that one");
                self.push(object, path, finding);
            }
            ApplyTo::Invalid => {
                self.push(object, path, Diagnostic::warning(code::OPERATION, "the patch has no `applyTo`"));
            }
        }
    }

    /// What the patch is for; `None` when it is for nothing that can be found.
    fn target(&mut self, object: &Arc<Object>, path: &str, spec: &EnvoyConfigObjectPatch) -> Option<Target> {
        let unusable = |parser: &mut Self, field: &str, message: String| {
            parser.push(object, &format!("{path}.match{field}"), Diagnostic::warning(code::MATCH, message));
            None
        };
        let Some(all) = &spec.r#match else {
            return Some(Target::Everything);
        };
        let wrong = |what: &str| format!("a match of a {what} cannot tell which {} is meant", spec.apply_to.as_str());
        match (&all.object, part_of(spec.apply_to)) {
            (_, Of::Nothing) | (None, _) if all.context != PatchContext::Waypoint => Some(Target::Everything),
            (Some(ObjectTypes::Listener(wanted)), Of::Listener) => match self.listener_match(spec.apply_to, wanted) {
                Some((field, message)) => unusable(self, field, message),
                None => Some(Target::Listener(wanted.clone())),
            },
            (Some(ObjectTypes::RouteConfiguration(wanted)), Of::Routes) => Some(Target::Routes(wanted.clone())),
            (Some(ObjectTypes::Cluster(wanted)), Of::Cluster) => Some(Target::Cluster(wanted.clone())),
            (Some(ObjectTypes::Listener(_)), _) => unusable(self, ".listener", wrong("listener")),
            (Some(ObjectTypes::RouteConfiguration(_)), _) => {
                unusable(self, ".routeConfiguration", wrong("route configuration"))
            }
            (Some(ObjectTypes::Cluster(_)), _) => unusable(self, ".cluster", wrong("cluster")),
            (Some(ObjectTypes::Waypoint(_)) | None, _) => {
                let finding = Diagnostic::warning(NOT_COMPILED, "patches for waypoints are not compiled yet");
                self.push(object, &format!("{path}.match"), finding);
                None
            }
        }
    }

    /// What is wrong with a match, and with which field.
    fn listener_match(&self, apply_to: ApplyTo, wanted: &ListenerMatch) -> Option<(&'static str, String)> {
        let filter = wanted.filter_chain.as_ref().and_then(|chain| chain.filter.as_ref())?;
        if !matches!(apply_to, ApplyTo::NetworkFilter | ApplyTo::HttpFilter) {
            return None;
        }
        let is_missing = |name: &Option<String>| name.as_deref().unwrap_or_default().is_empty();
        if is_missing(&filter.name) {
            return Some((".listener.filterChain.filter", "the match of a filter has no `name`".to_owned()));
        }
        match &filter.sub_filter {
            Some(_) if apply_to != ApplyTo::HttpFilter => Some((
                ".listener.filterChain.filter.subFilter",
                format!("`subFilter` is for HTTP_FILTER, not for {apply_to}"),
            )),
            Some(sub_filter) if is_missing(&sub_filter.name) => {
                Some((".listener.filterChain.filter.subFilter", "the match of an HTTP filter has no `name`".to_owned()))
            }
            _ => None,
        }
    }

    fn proxy(&mut self, object: &Arc<Object>, path: &str, spec: Option<&ProxyMatch>) -> Option<ProxyCondition> {
        let Some(spec) = spec else {
            return Some(ProxyCondition::default());
        };
        let version = match spec.proxy_version.as_deref().filter(|pattern| !pattern.is_empty()) {
            None => None,
            Some(pattern) => match version_regex(pattern) {
                Ok(regex) => Some(regex),
                Err(error) => {
                    let message = format!("`proxyVersion` is no regular expression: {error}");
                    let finding = Diagnostic::warning(code::MATCH, message);
                    self.push(object, &format!("{path}.match.proxy.proxyVersion"), finding);
                    return None;
                }
            },
        };
        Some(ProxyCondition { version, metadata: spec.metadata.clone() })
    }

    fn change<M: Patched>(&mut self, about: &About, spec: &EnvoyConfigObjectPatch) -> Option<Change<M>> {
        let (object, path) = (&about.object, format!("{}.patch", about.path));
        let patch = spec.patch.as_ref();
        let operation = patch.map(|patch| patch.operation).unwrap_or_default();
        let not_known = |parser: &mut Self, help: &str| {
            let message = format!("{} does not know the operation {operation}", about.apply_to);
            let finding = Diagnostic::warning(code::OPERATION, message).help(help);
            parser.push(object, &format!("{path}.operation"), finding);
            None
        };
        if operation == Operation::Invalid {
            let finding = Diagnostic::warning(code::OPERATION, "the patch has no operation");
            self.push(object, &path, finding);
            return None;
        }
        let Some(operation) = operation_for(about.apply_to, operation) else {
            return not_known(self, operations_of(about.apply_to));
        };
        let is_filter =
            matches!(about.apply_to, ApplyTo::ListenerFilter | ApplyTo::NetworkFilter | ApplyTo::HttpFilter);
        if is_filter && about.element.is_none() && matches!(operation, Operation::Remove | Operation::Replace) {
            let message = format!("{operation} needs the name of a filter in `match`, and has none");
            self.push(object, &about.path, Diagnostic::warning(code::MATCH, message));
            return None;
        }
        if operation == Operation::Remove {
            return Some(Change::Remove);
        }
        let value: Value<M> = self.value(about, patch.and_then(|patch| patch.value.as_ref()), operation)?;
        Some(match operation {
            Operation::Merge => Change::Merge(value, Lists::Append),
            Operation::MergeAndReplaceList => Change::Merge(value, Lists::Replace),
            Operation::Replace => Change::Replace(value.message),
            Operation::InsertFirst => Change::Insert(value.message, Place::First),
            Operation::InsertBefore => Change::Insert(value.message, Place::Before),
            Operation::InsertAfter => Change::Insert(value.message, Place::After),
            Operation::Add | Operation::Remove | Operation::Invalid => Change::Insert(value.message, Place::Last),
        })
    }

    fn value<M: Patched>(
        &mut self,
        about: &About,
        spec: Option<&lateen_config::PatchValue>,
        operation: Operation,
    ) -> Option<Value<M>> {
        let path = format!("{}.patch.value", about.path);
        let Some(spec) = spec else {
            let message = format!("{operation} needs a `value`, and has none");
            self.push(&about.object, &about.path, Diagnostic::warning(code::VALUE, message));
            return None;
        };
        let below = |field: &str| if field.is_empty() { path.clone() } else { format!("{path}.{field}") };
        match value::read::<M>(&spec.fields) {
            Ok((value, unknown)) => {
                for error in unknown {
                    let finding = Diagnostic::warning(code::FIELD, format!("unknown field `{}`", error.path))
                        .label(error.message)
                        .help("the field is left out of the patch");
                    self.push(&about.object, &below(&error.path), finding);
                }
                let merges = matches!(operation, Operation::Merge | Operation::MergeAndReplaceList);
                if let Some(field) = value.message.missing().filter(|_| !merges) {
                    let message = format!("a {} without `{field}` is refused by Envoy", about.apply_to);
                    let finding = Diagnostic::warning(code::VALUE, message).help("the patch is left out");
                    self.push(&about.object, &path, finding);
                    return None;
                }
                Some(value)
            }
            Err(error) => {
                let message = format!("the value is no {}: {error}", M::full_name());
                let finding = Diagnostic::warning(code::VALUE, message).help("the patch is left out");
                self.push(&about.object, &below(&error.path), finding);
                None
            }
        }
    }

    /// HTTP filters that are put at the end of their chain never see a request, and Envoy refuses a chain that does not
    /// end with the router. With a patch that puts a router somewhere, the end is not where it was.
    fn behind_router(&mut self) {
        let is_router = |filter: &HttpFilter| match &filter.config_type {
            Some(http_filter::ConfigType::TypedConfig(config)) => any::is::<Router>(config),
            _ => false,
        };
        let puts_router = self.table.http_filters.iter().any(|patch| match &patch.change {
            Change::Insert(value, _) | Change::Replace(value) => is_router(value),
            Change::Merge(..) | Change::Remove => false,
        });
        if puts_router {
            return;
        }
        let mut found = Vec::new();
        for patch in &mut self.table.http_filters {
            let at_the_end = match (&patch.change, &patch.about.element) {
                (Change::Insert(_, Place::Last), _) | (Change::Insert(_, Place::After), None) => true,
                (Change::Insert(_, Place::After), Some(name)) => name == "envoy.filters.http.router",
                _ => false,
            };
            if let (true, Some(patch)) = (at_the_end, Arc::get_mut(patch)) {
                patch.about.lands_behind_router = true;
                found.push((patch.about.object.clone(), patch.about.path.clone()));
            }
        }
        for (object, path) in found {
            let finding = Diagnostic::warning(
                code::POSITION,
                "the HTTP filter would stand behind the router, where no request comes: it is left out",
            )
            .help("use INSERT_BEFORE with `subFilter: {name: envoy.filters.http.router}`, or INSERT_FIRST");
            self.push(&object, &format!("{path}.patch.operation"), finding);
        }
    }

    /// Filters whose configuration is discovered apart, and is nowhere.
    fn extensions_without_configuration(&mut self) {
        let discovered = |filter: &HttpFilter| {
            matches!(filter.config_type, Some(http_filter::ConfigType::ConfigDiscovery(_)))
                && !self.table.extensions.iter().any(|patch| match &patch.change {
                    Change::Insert(value, _) => value.name == filter.name,
                    _ => false,
                })
        };
        let mut found = Vec::new();
        for patch in &self.table.http_filters {
            if let Change::Insert(value, _) | Change::Replace(value) = &patch.change
                && discovered(value)
            {
                found.push((patch.about.object.clone(), patch.about.path.clone(), value.name.clone()));
            }
        }
        for (object, path, name) in found {
            let message = format!("no EXTENSION_CONFIG patch has the configuration of the filter `{name}`");
            self.push(&object, &format!("{path}.patch.value"), Diagnostic::warning(code::VALUE, message));
        }
    }

    fn push(&mut self, object: &Arc<Object>, path: &str, mut finding: Diagnostic) {
        finding = finding.at(object.location(path)).about(object.subject());
        finding.path = path.to_owned();
        self.findings.push(finding);
    }
}

/// What a type is part of.
enum Of {
    Listener,
    Routes,
    Cluster,
    Nothing,
}

fn part_of(apply_to: ApplyTo) -> Of {
    match apply_to {
        ApplyTo::Listener
        | ApplyTo::ListenerFilter
        | ApplyTo::FilterChain
        | ApplyTo::NetworkFilter
        | ApplyTo::HttpFilter => Of::Listener,
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => Of::Routes,
        ApplyTo::Cluster => Of::Cluster,
        ApplyTo::ExtensionConfig | ApplyTo::Bootstrap | ApplyTo::Invalid => Of::Nothing,
    }
}

/// The name of the filter among its neighbours that is meant.
fn element(apply_to: ApplyTo, target: &Target) -> Option<String> {
    let Target::Listener(wanted) = target else {
        return None;
    };
    let filter = || wanted.filter_chain.as_ref()?.filter.as_ref();
    let name = match apply_to {
        ApplyTo::ListenerFilter => wanted.listener_filter.clone(),
        ApplyTo::NetworkFilter => filter().and_then(|filter| filter.name.clone()),
        ApplyTo::HttpFilter => filter().and_then(|filter| filter.sub_filter.as_ref()?.name.clone()),
        _ => None,
    };
    name.filter(|name| !name.is_empty())
}

/// The operation that is carried out: where a type is in no list with an order, inserting is adding. `None` for an
/// operation that the type does not know.
fn operation_for(apply_to: ApplyTo, operation: Operation) -> Option<Operation> {
    use Operation::{Add, InsertAfter, InsertBefore, InsertFirst, Merge, MergeAndReplaceList, Remove, Replace};
    let inserts = matches!(operation, InsertFirst | InsertBefore | InsertAfter);
    match apply_to {
        ApplyTo::ListenerFilter | ApplyTo::NetworkFilter | ApplyTo::HttpFilter => {
            (operation != MergeAndReplaceList).then_some(operation)
        }
        ApplyTo::HttpRoute => (operation != Replace).then_some(operation),
        ApplyTo::VirtualHost if inserts => Some(Add),
        ApplyTo::VirtualHost => Some(operation),
        ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::Cluster if inserts => Some(Add),
        ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::Cluster => (operation != Replace).then_some(operation),
        ApplyTo::RouteConfiguration => matches!(operation, Merge | MergeAndReplaceList).then_some(operation),
        ApplyTo::ExtensionConfig if inserts => Some(Add),
        ApplyTo::ExtensionConfig => (operation == Add).then_some(operation),
        ApplyTo::Bootstrap => (operation == Merge).then_some(operation),
        ApplyTo::Invalid => (operation == Remove).then_some(operation),
    }
}

/// The operations of a type, for people.
fn operations_of(apply_to: ApplyTo) -> &'static str {
    match apply_to {
        ApplyTo::ListenerFilter | ApplyTo::NetworkFilter | ApplyTo::HttpFilter => {
            "it knows ADD, INSERT_FIRST, INSERT_BEFORE, INSERT_AFTER, REPLACE, REMOVE and MERGE"
        }
        ApplyTo::HttpRoute => {
            "it knows ADD, INSERT_FIRST, INSERT_BEFORE, INSERT_AFTER, REMOVE, MERGE and MERGE_AND_REPLACE_LIST"
        }
        ApplyTo::VirtualHost => "it knows ADD, REPLACE, REMOVE, MERGE and MERGE_AND_REPLACE_LIST",
        ApplyTo::RouteConfiguration => "it knows MERGE and MERGE_AND_REPLACE_LIST",
        ApplyTo::ExtensionConfig => "it knows ADD",
        _ => "it knows ADD, REMOVE, MERGE and MERGE_AND_REPLACE_LIST",
    }
}

/// Versions are ASCII, so that matching bytes is what RE2 does as well.
fn version_regex(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > REGEX_LENGTH {
        return Err(format!("it is longer than {REGEX_LENGTH} characters"));
    }
    match RegexBuilder::new(&re2::translate(pattern)?).size_limit(REGEX_SIZE).build() {
        Ok(regex) => Ok(regex),
        Err(regex::Error::CompiledTooBig(_)) => Err("it is too large".to_owned()),
        // The last line says what is wrong; those before it draw the place.
        Err(error) => {
            let text = error.to_string();
            Err(text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
        }
    }
}
