//! Which part of a cluster's hosts is meant? Envoy's subsets by metadata `envoy.lb`.

use lateen_xds::envoy::config::cluster::v3 as cluster_v3;
use lateen_xds::envoy::config::cluster::v3::cluster::lb_subset_config as message;
use lateen_xds::envoy::config::core::v3 as core_v3;
use prost::Message as _;
use prost_types::Struct;

use super::Invalid;

/// The metadata that counts.
const NAMESPACE: &str = "envoy.lb";

/// Keys with values, in the order of the keys: what a host has, or what a route asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Criteria(Vec<(Box<str>, Vec<u8>)>);

impl Criteria {
    /// Of the metadata of a host or a route.
    #[must_use]
    pub fn of(metadata: Option<&core_v3::Metadata>) -> Self {
        metadata.and_then(|metadata| metadata.filter_metadata.get(NAMESPACE)).map(Self::of_struct).unwrap_or_default()
    }

    fn of_struct(fields: &Struct) -> Self {
        // A value is told from another one by its encoding.
        Self(fields.fields.iter().map(|(key, value)| (key.as_str().into(), value.encode_to_vec())).collect())
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, and of others what is not said here.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        let mut all = self.0.clone();
        all.extend(others.0.iter().filter(|(key, _)| self.value(key).is_none()).cloned());
        all.sort();
        Self(all)
    }

    /// What is here of these keys; `None` when one of them is missing.
    #[must_use]
    pub fn only(&self, keys: &[Box<str>]) -> Option<Self> {
        keys.iter().map(|key| Some((key.clone(), self.value(key)?.to_vec()))).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Whether all that is asked for here is there.
    #[must_use]
    pub fn is_met_by(&self, host: &Self) -> bool {
        self.0.iter().all(|(key, value)| host.value(key) == Some(value))
    }

    fn has_keys(&self, keys: &[Box<str>]) -> bool {
        self.0.len() == keys.len() && self.0.iter().zip(keys).all(|((key, _), wanted)| key == wanted)
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        let index = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        self.0.get(index).map(|(_, value)| value.as_slice())
    }
}

/// Envoy's `LbSubsetConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct SubsetConfig {
    /// By which keys there are subsets.
    pub selectors: Vec<Selector>,
    /// Where a request goes that no subset fits.
    pub fallback: Fallback,
    /// What the hosts of the default subset have.
    pub default_subset: Criteria,
    /// Localities share by their weights in subsets too.
    pub locality_weight_aware: bool,
}

/// Keys whose values make subsets.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// The keys, sorted.
    pub keys: Vec<Box<str>>,
    /// Where a request goes that asks for these keys and for values that no host has; `None` is as the cluster says.
    pub fallback: Option<Fallback>,
}

/// Where a request goes that no subset fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nowhere.
    None,
    /// To any host.
    Any,
    /// To the default subset.
    Default,
    /// To the subset by fewer keys.
    Keys(Vec<Box<str>>),
}

impl SubsetConfig {
    /// Reads the message; `None` when there are no subsets.
    ///
    /// # Errors
    /// What is not supported: lists as values, single hosts, metadata of fallbacks.
    pub(crate) fn build(message: &cluster_v3::cluster::LbSubsetConfig) -> Result<Option<Self>, Invalid> {
        let refuse = |refused: bool, field: &str| match refused {
            true => Err(Invalid::at(field, "is not supported yet".into())),
            false => Ok(()),
        };
        if message.subset_selectors.is_empty() {
            return Ok(None);
        }
        refuse(message.list_as_any, "list_as_any")?;
        refuse(message.panic_mode_any, "panic_mode_any")?;
        refuse(message.scale_locality_weight, "scale_locality_weight")?;
        refuse(message.metadata_fallback_policy != 0, "metadata_fallback_policy")?;
        use message::LbSubsetFallbackPolicy as Policy;
        let fallback = match Policy::try_from(message.fallback_policy) {
            Ok(Policy::NoFallback) => Fallback::None,
            Ok(Policy::AnyEndpoint) => Fallback::Any,
            Ok(Policy::DefaultSubset) => Fallback::Default,
            Err(_) => return Err(Invalid::at("fallback_policy", format!("{} is none", message.fallback_policy))),
        };
        let selectors = message.subset_selectors.iter().enumerate().map(|(index, selector)| {
            Selector::build(selector).map_err(|invalid| invalid.under(&format!("subset_selectors[{index}]")))
        });
        Ok(Some(Self {
            selectors: selectors.collect::<Result<_, _>>()?,
            fallback,
            default_subset: message.default_subset.as_ref().map(Criteria::of_struct).unwrap_or_default(),
            locality_weight_aware: message.locality_weight_aware,
        }))
    }

    /// The selector for exactly the keys that are asked for.
    #[must_use]
    pub fn selector(&self, criteria: &Criteria) -> Option<&Selector> {
        self.selectors.iter().find(|selector| criteria.has_keys(&selector.keys))
    }
}

impl Selector {
    fn build(message: &message::LbSubsetSelector) -> Result<Self, Invalid> {
        use message::lb_subset_selector::LbSubsetSelectorFallbackPolicy as Policy;
        if message.single_host_per_subset {
            return Err(Invalid::at("single_host_per_subset", "is not supported yet".into()));
        }
        let sorted = |keys: &[String]| {
            let mut keys: Vec<Box<str>> = keys.iter().map(|key| key.as_str().into()).collect();
            keys.sort();
            keys.dedup();
            keys
        };
        let fallback = match Policy::try_from(message.fallback_policy) {
            Ok(Policy::NotDefined) => None,
            Ok(Policy::NoFallback) => Some(Fallback::None),
            Ok(Policy::AnyEndpoint) => Some(Fallback::Any),
            Ok(Policy::DefaultSubset) => Some(Fallback::Default),
            Ok(Policy::KeysSubset) => {
                let fewer = sorted(&message.fallback_keys_subset);
                let known = fewer.iter().all(|key| message.keys.iter().any(|own| **own == **key));
                if fewer.is_empty() || !known || fewer.len() >= message.keys.len() {
                    let text = "must be some of the selector's keys, and not all".to_owned();
                    return Err(Invalid::at("fallback_keys_subset", text));
                }
                Some(Fallback::Keys(fewer))
            }
            Err(_) => return Err(Invalid::at("fallback_policy", format!("{} is none", message.fallback_policy))),
        };
        Ok(Self { keys: sorted(&message.keys), fallback })
    }
}
