//! Which ports does the demo listen on? The usual ones, or the next ones when others have them.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, bail};
use lateen_compile::PortMapping;

use super::app::SERVICE_PORT;

/// The port of the example's Gateway; the demo moves it.
pub(crate) const GATEWAY_PORT: u16 = 80;
/// Usual port of the HTTP proxy into the mesh.
const HTTP_PROXY_PORT: u16 = 15080;
/// Usual port of the admin interface.
const ADMIN_PORT: u16 = 15000;
/// Ports tried after the usual one.
const TRIES: u16 = 100;

/// Ports that were free a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    /// The gateway.
    pub(crate) gateway: u16,
    /// The mesh listener of the services' port.
    pub(crate) mesh: u16,
    /// The HTTP proxy into the mesh.
    pub(crate) http_proxy: u16,
    /// The admin interface.
    pub(crate) admin: u16,
}

impl Ports {
    /// Looks for free ports; `gateway` is the port that the user would like for it. With 0 all ports are any free ones.
    ///
    /// # Errors
    /// A gateway port below 80, or no free port.
    pub(crate) fn choose(gateway: u16) -> anyhow::Result<Self> {
        if (1..GATEWAY_PORT).contains(&gateway) {
            bail!("the gateway's port can be {GATEWAY_PORT} or higher; {gateway} was asked for with --port");
        }
        if gateway == 0 {
            return Self::any().context("no free ports on 127.0.0.1");
        }
        let mut taken = Vec::new();
        let mut free = |usual| {
            let port = free_port(usual, &taken).with_context(|| format!("no free port from {usual} on"))?;
            taken.push(port);
            anyhow::Ok(port)
        };
        Ok(Self {
            gateway: free(gateway)?,
            mesh: free(SERVICE_PORT)?,
            http_proxy: free(HTTP_PROXY_PORT)?,
            admin: free(ADMIN_PORT)?,
        })
    }

    /// Any free ports.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn any() -> io::Result<Self> {
        let mut holders = Vec::new();
        let mut free = || {
            let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = holder.local_addr()?.port();
            // Held until all are known, so that no port is found twice.
            holders.push(holder);
            io::Result::Ok(port)
        };
        Ok(Self { gateway: free()?, mesh: free()?, http_proxy: free()?, admin: free()? })
    }

    /// How the gateway's ports are moved.
    pub(crate) fn gateway_mapping(self) -> PortMapping {
        PortMapping::Offset(self.gateway - GATEWAY_PORT)
    }

    /// How the ports of the services are moved; that of the HTTP proxy is not among them.
    pub(crate) fn mesh_mapping(self) -> PortMapping {
        PortMapping::Offset(self.mesh - SERVICE_PORT)
    }
}

/// The first free loopback port from `usual` on that is not among those given away already.
fn free_port(usual: u16, taken: &[u16]) -> io::Result<u16> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in (usual..=usual.saturating_add(TRIES)).filter(|port| !taken.contains(port)) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let held = holder.local_addr().unwrap().port();
        let free = free_port(held, &[]).unwrap();
        assert!(free > held);
        assert!(free_port(held, &[free]).unwrap() > free);
    }

    #[test]
    fn all_ports_differ_and_mappings_lead_back_to_them() {
        let ports = Ports::choose(0).unwrap();
        let mut all = [ports.gateway, ports.mesh, ports.http_proxy, ports.admin].to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4);
        assert_eq!(ports.gateway_mapping().apply(u32::from(GATEWAY_PORT)), u32::from(ports.gateway));
        assert_eq!(ports.mesh_mapping().apply(u32::from(SERVICE_PORT)), u32::from(ports.mesh));
    }

    #[test]
    fn a_port_below_that_of_the_gateway_object_is_refused() {
        assert!(Ports::choose(79).unwrap_err().to_string().contains("--port"));
    }
}
