//! What can an Ingress and an IngressClass say? The fields of `networking.k8s.io/v1` Ingress and IngressClass.

use crate::decode::{enumeration, message};
use crate::metadata::Metadata;

/// Annotation of old for the class of an Ingress, which counts before `ingressClassName`.
pub(crate) const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

message! {
    /// The root of an Ingress.
    pub(crate) struct IngressRoot {
        /// Its content.
        spec: Option<Ingress>,
    }

    /// Which services are reached from outside, by host and path.
    pub struct Ingress {
        /// Name of the IngressClass that serves it.
        ingress_class_name: Option<String>,
        /// Where requests go that no rule takes.
        default_backend: Option<IngressBackend>,
        /// Certificates.
        tls: Vec<IngressTls>,
        /// The rules.
        rules: Vec<IngressRule>,
    }

    /// A certificate.
    pub struct IngressTls {
        /// Hosts that it is for. Empty: all.
        hosts: Vec<String>,
        /// Secret with certificate and key.
        secret_name: Option<String>,
    }

    /// Where requests for a host go.
    pub struct IngressRule {
        /// The host, perhaps with `*.` in front. Absent: every host.
        host: Option<String>,
        /// By path. Absent: all to the default backend.
        http: Option<HttpIngressRuleValue>,
    }

    /// Where requests go by path.
    pub struct HttpIngressRuleValue {
        /// The paths.
        paths: Vec<HttpIngressPath>,
    }

    /// Where requests for a path go.
    pub struct HttpIngressPath {
        /// The path. Absent: every path.
        path: Option<String>,
        /// How it is compared.
        path_type: PathType = PathType::ImplementationSpecific,
        /// Where they go.
        backend: IngressBackend = IngressBackend::default(),
    }

    /// Where requests go.
    pub struct IngressBackend {
        /// A Service.
        service: Option<IngressServiceBackend>,
        /// Another object; Istio passes over such backends.
        resource: Option<serde_json::Value>,
    }

    /// A Service of the same namespace.
    pub struct IngressServiceBackend {
        /// Name.
        name: String = String::new(),
        /// Port.
        port: Option<ServiceBackendPort>,
    }

    /// A port of a Service, by its name or its number.
    pub struct ServiceBackendPort {
        /// Name.
        name: Option<String>,
        /// Number; 0 is the same as none.
        number: Option<u32>,
    }

    /// The root of an IngressClass.
    pub(crate) struct IngressClassRoot {
        /// Its content.
        spec: Option<IngressClass>,
    }

    /// Who serves the Ingress objects of a class.
    pub struct IngressClass {
        /// Name of the controller; Istio's is `istio.io/ingress-controller`.
        controller: Option<String>,
    }
}

enumeration! {
    /// How the path of an Ingress is compared.
    pub enum PathType {
        /// As Istio likes: the same as `Prefix`, or a pattern.
        ImplementationSpecific = 0 "ImplementationSpecific",
        /// Equal.
        Exact = 1 "Exact",
        /// By its parts between slashes, from the beginning.
        Prefix = 2 "Prefix",
    }
}

impl Ingress {
    /// The class of an Ingress of this metadata: by annotation, else by field.
    pub fn class<'a>(&'a self, metadata: &'a Metadata) -> Option<&'a str> {
        let annotation = metadata.annotations.get(CLASS_ANNOTATION).map(String::as_str);
        annotation.or(self.ingress_class_name.as_deref())
    }
}
