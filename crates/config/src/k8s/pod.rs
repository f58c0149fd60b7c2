//! What can a Pod, and a Deployment that makes Pods, say? The fields of `v1` Pod and `apps/v1` Deployment that the
//! mesh depends on.

use std::collections::BTreeMap;

use crate::decode::message;

message! {
    /// A Pod.
    pub struct Pod {
        /// What it is to be.
        spec: PodSpec = PodSpec::default(),
        /// What it is.
        status: PodStatus = PodStatus::default(),
    }

    /// What a Pod is to be.
    pub struct PodSpec {
        /// Containers.
        containers: Vec<Container>,
        /// Containers that run first; with `restartPolicy: Always` they stay.
        init_containers: Vec<Container>,
        /// Service account.
        service_account_name: Option<String>,
        /// Old name of `service_account_name`.
        service_account: Option<String>,
        /// Node that it runs on.
        node_name: Option<String>,
        /// Name of the host.
        hostname: Option<String>,
        /// Domain of the host.
        subdomain: Option<String>,
        /// Whether it has the node's network.
        host_network: bool,
    }

    /// A container.
    pub struct Container {
        /// Name.
        name: Option<String>,
        /// Image.
        image: Option<String>,
        /// Ports.
        ports: Vec<ContainerPort>,
    }

    /// A port of a container.
    pub struct ContainerPort {
        /// Name that a Service can refer to.
        name: Option<String>,
        /// Number.
        container_port: u32,
        /// `TCP`, `UDP` or `SCTP`.
        protocol: Option<String>,
    }

    /// What a Pod is.
    pub struct PodStatus {
        /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
        phase: Option<String>,
        /// Address.
        pod_ip as "podIP": Option<String>,
        /// Addresses of both families.
        pod_ips as "podIPs": Vec<PodIp>,
        /// Address of the node.
        host_ip as "hostIP": Option<String>,
        /// Conditions, for example `Ready`.
        conditions: Vec<PodCondition>,
    }

    /// An address of a Pod.
    pub struct PodIp {
        /// The address.
        ip: Option<String>,
    }

    /// A condition of a Pod.
    pub struct PodCondition {
        /// Type, for example `Ready`.
        r#type: Option<String>,
        /// `True`, `False` or `Unknown`.
        status: Option<String>,
    }

    /// The root of a Deployment.
    pub(crate) struct DeploymentRoot {
        /// Its content.
        spec: Option<Deployment>,
    }

    /// Makes Pods.
    pub struct Deployment {
        /// How many.
        replicas: Option<i32>,
        /// Choice of the Pods that are its own.
        selector: LabelSelector = LabelSelector::default(),
        /// What the Pods are like.
        template: PodTemplate = PodTemplate::default(),
    }

    /// A choice by label.
    pub struct LabelSelector {
        /// Labels that all have to be there.
        match_labels: BTreeMap<String, String>,
    }

    /// What Pods are like.
    pub struct PodTemplate {
        /// Their labels and annotations.
        metadata: TemplateMetadata = TemplateMetadata::default(),
        /// What they are to be.
        spec: PodSpec = PodSpec::default(),
    }

    /// Labels and annotations of Pods.
    pub struct TemplateMetadata {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
    }
}

impl Pod {
    /// True when its condition `Ready` is; `None` when it has no such condition.
    pub fn is_ready(&self) -> Option<bool> {
        let ready = self.status.conditions.iter().find(|condition| condition.r#type.as_deref() == Some("Ready"))?;
        Some(ready.status.as_deref() == Some("True"))
    }
}
