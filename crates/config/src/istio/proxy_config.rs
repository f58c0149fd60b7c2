//! What can a ProxyConfig say? Its fields as Istio's API has them (`networking.istio.io/v1beta1`, ProxyConfig). What the
//! mesh says of all proxies is in `mesh`.

use std::collections::BTreeMap;

use crate::decode::message;
use crate::istio::destination_rule::MatchLabelsSelector;

message! {
    /// How the proxies of some workloads are started.
    pub struct ProxyConfigSpec {
        /// The workloads. Absent: all of the namespace, or of the mesh if it is the root namespace.
        selector: Option<MatchLabelsSelector>,
        /// Number of workers; 0 is one for each core.
        concurrency: Option<i32>,
        /// Further environment of the proxy.
        environment_variables: BTreeMap<String, String>,
        /// The image of the proxy.
        image: Option<ProxyImage>,
    }

    /// The image of a proxy.
    pub struct ProxyImage {
        /// Variant, for example `distroless`.
        image_type: Option<String>,
    }
}
