//! Do names become hosts by the rules of their cluster?

use super::*;

fn named(kind: &str, family: &str, host: &str, port: u16) -> XdsSet {
    let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}});
    let settings = json!({"type": kind, "dns_lookup_family": family, "dns_refresh_rate": "60s",
        "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [endpoint]}]}});
    set_of(json!({"cluster": "a"}), settings, &[])
}

#[tokio::test]
async fn a_name_becomes_the_addresses_of_the_family_that_the_cluster_wants() {
    let (address, _) = backend("a").await;
    for kind in ["STRICT_DNS", "LOGICAL_DNS"] {
        let running = Running::start(named(kind, "V4_ONLY", "localhost", address.port())).await;
        running.await_stat("a", "membership_total", 1).await;
        assert_eq!(running.get("/x").await.status, 200, "{kind}");
        let clusters = running.admin("/clusters").await;
        assert!(clusters.contains(&format!("a::{address}::hostname::localhost\n")), "{clusters}");
        assert_eq!(running.stat("a", "update_success").await, 1, "{kind}");
    }
    let running = Running::start(named("STRICT_DNS", "V6_ONLY", "localhost", address.port())).await;
    running.await_stat("a", "update_attempt", 1).await;
    assert_eq!(running.get("/x").await.status, 503);
    assert!(!running.admin("/clusters").await.contains("127.0.0.1"));
}
