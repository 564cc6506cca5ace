//! What is read of a Service and of its EndpointSlices.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Client, Error, Resource,
    core::{ApiResource, DynamicResourceScope, Object},
};
use outrider_model::IpProto;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::plan::{NamedPort, Service, Slice};

/// Addresses of one Service that are kept.
const MAX_ADDRESSES: usize = 16;
/// The label by which an EndpointSlice says whose it is.
const SERVICE: &str = "kubernetes.io/service-name";
/// Between two questions of which version there is.
const PAUSE: Duration = Duration::from_secs(2);

/// A Service as far as it is read.
pub(super) type ApiService = Object<Spec, Status>;

/// Of `spec`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Spec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
    ports: Vec<ApiPort>,
}

/// Of a Service's or a slice's ports.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct ApiPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

/// Of `status`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: String,
    ip_mode: Option<String>,
}

/// What `Api` has to know of Services.
pub(super) fn services() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&())
}

/// What is kept of a Service; nothing of one without an address.
pub(super) fn service(object: ApiService) -> Option<Service> {
    let (meta, spec) = (object.metadata, object.spec);
    let status = object.status.unwrap_or_default();
    let own = match spec.cluster_ips.is_empty() {
        true => vec![spec.cluster_ip],
        false => spec.cluster_ips,
    };
    // What a load balancer takes to itself (`Proxy`), nodes do not rewrite.
    let balanced = status.load_balancer.ingress.into_iter();
    let balanced = balanced.filter(|one| one.ip_mode.as_deref() != Some("Proxy"));
    let borrowed = spec.external_ips.into_iter();
    let borrowed: Vec<_> = borrowed.chain(balanced.map(|one| one.ip)).collect();
    let kept = Service {
        namespace: meta.namespace?.into(),
        name: meta.name?.into(),
        addresses: addresses(&own),
        borrowed: addresses(&borrowed),
        ports: ports(spec.ports),
    };
    let has_none = kept.addresses.is_empty() && kept.borrowed.is_empty();
    (spec.kind != "ExternalName" && !has_none).then_some(kept)
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    let read = texts.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    read.map(|ip| ip.to_canonical())
        .take(MAX_ADDRESSES)
        .collect()
}

fn ports(ports: Vec<ApiPort>) -> Vec<NamedPort> {
    let read = |one: ApiPort| {
        let proto = match one.protocol.as_deref() {
            None | Some("TCP") => IpProto::TCP,
            Some("UDP") => IpProto::UDP,
            Some("SCTP") => IpProto::SCTP,
            Some(_) => return None,
        };
        Some(NamedPort { name: one.name.unwrap_or_default().into(), proto, port: one.port? })
    };
    ports.into_iter().filter_map(read).collect()
}

/// An EndpointSlice as far as it is read, of either version.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiSlice {
    metadata: ObjectMeta,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<ApiPort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Conditions,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
}

impl Resource for ApiSlice {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(known: &ApiResource) -> Cow<'_, str> {
        known.kind.as_str().into()
    }

    fn group(known: &ApiResource) -> Cow<'_, str> {
        known.group.as_str().into()
    }

    fn version(known: &ApiResource) -> Cow<'_, str> {
        known.version.as_str().into()
    }

    fn plural(known: &ApiResource) -> Cow<'_, str> {
        known.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What `Api` has to know of EndpointSlices: before Kubernetes 1.21 there is no `v1` of them. Asks until the API server
/// answers.
pub(super) async fn slices(client: &Client) -> ApiResource {
    let mut known = ApiResource::erase::<k8s_openapi::api::discovery::v1::EndpointSlice>(&());
    loop {
        match client.list_api_group_resources(&known.api_version).await {
            Ok(_) => return known,
            Err(Error::Api(status)) if status.code == 404 => {
                known.version = "v1beta1".into();
                known.api_version = "discovery.k8s.io/v1beta1".into();
                return known;
            }
            Err(error) => tracing::warn!(%error, "which version of EndpointSlices there is"),
        }
        sleep(PAUSE).await;
    }
}

/// What is kept of a slice; nothing of one that is no Service's.
pub(super) fn slice(object: ApiSlice) -> Option<Slice> {
    let meta = object.metadata;
    let service = meta.labels?.remove(SERVICE)?;
    let endpoints = object.endpoints.unwrap_or_default();
    // One that ends may still be sent to while nobody else is there.
    let takes = |one: &Endpoint| {
        one.conditions.ready.unwrap_or(true) || one.conditions.serving.unwrap_or(false)
    };
    let taking = endpoints.into_iter().filter(takes);
    let found = taking.flat_map(|one| one.addresses);
    let mut found: Vec<IpAddr> = found
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .map(|ip| ip.to_canonical())
        .collect();
    found.sort_unstable();
    found.dedup();
    Some(Slice {
        namespace: meta.namespace?.into(),
        service: service.into(),
        name: meta.name?.into(),
        ports: ports(object.ports.unwrap_or_default()),
        addresses: found,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: &serde_json::Value, status: &serde_json::Value) -> Option<Service> {
        let object = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec, "status": status});
        service(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_service_is_kept_if_it_has_an_address() {
        let kept = read(
            &json!({
                "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"],
                "externalIPs": ["192.0.2.7", "?"],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"},
                    {"port": 1, "protocol": "ODD"}],
            }),
            &json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"hostname": "x"},
                {"ip": "192.0.2.9", "ipMode": "Proxy"}]}}),
        )
        .unwrap();
        let text = |all: &[IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&kept.addresses), ["10.96.0.9", "fd00:96::9"]);
        assert_eq!(text(&kept.borrowed), ["192.0.2.7", "192.0.2.8"]);
        let ports: Vec<_> = kept
            .ports
            .iter()
            .map(|one| (&*one.name, one.proto, one.port))
            .collect();
        assert_eq!(ports, [("http", IpProto::TCP, 80), ("", IpProto::UDP, 53)]);
        let old = read(&json!({"clusterIP": "10.96.0.9"}), &json!({})).unwrap();
        assert_eq!(text(&old.addresses), ["10.96.0.9"], "before there were two families");
        assert_eq!(read(&json!({"clusterIP": "None", "clusterIPs": ["None"]}), &json!({})), None);
        let name = json!({"type": "ExternalName", "clusterIP": "10.96.0.9"});
        assert_eq!(read(&name, &json!({})), None);
        let many: Vec<_> = (0..40).map(|at| format!("192.0.2.{at}")).collect();
        let many = read(&json!({"externalIPs": many}), &json!({})).unwrap();
        assert_eq!(many.borrowed.len(), MAX_ADDRESSES);
    }

    #[test]
    fn of_a_slice_addresses_count_that_may_be_sent_to() {
        let object = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {SERVICE: "web"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true},
                    "targetRef": {"kind": "Pod", "name": "lie", "uid": "lie"}},
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            ],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "odd"}],
        });
        let kept = slice(serde_json::from_value(object).unwrap()).unwrap();
        let text: Vec<_> = kept.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.0.0.1", "10.0.0.2", "10.0.0.4"]);
        assert_eq!((&*kept.service, kept.ports.len(), kept.ports[0].port), ("web", 1, 8080));
        let empty = json!({"metadata": {"name": "x", "namespace": "shop"}, "endpoints": null, "ports": null});
        assert_eq!(slice(serde_json::from_value(empty).unwrap()), None, "it is no Service's");
    }
}
