//! May a request change the protocol of its connection? The route says so, or else the connection manager.

use crate::http::head::{Head, Known};
use crate::snapshot::hcm::HttpConnectionManager;
use crate::snapshot::route::{Forward, Upgrade};

/// What a request asks for besides HTTP, when it may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgraded {
    /// `upgrade: websocket`: an answer that is neither an agreement nor an error ends it.
    WebSocket,
    /// Another protocol.
    Other,
    /// `CONNECT`, which the upstream answers.
    Connect,
    /// `CONNECT`, which ends here: the upstream gets the bytes alone.
    Tunnel,
}

/// What becomes of a request that asks for an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// It asks for none.
    NotAsked,
    /// It may have it.
    Granted(Upgraded),
    /// 403.
    Refused,
}

/// Decides about a request on its route. `asks` tells whether `upgrade` is there and `connection` confirms it.
pub(crate) fn permit(
    manager: &HttpConnectionManager,
    route: Option<&Forward>,
    request: &Head,
    asks: bool,
) -> Permission {
    let connect = request.method() == b"CONNECT";
    let kind: &[u8] = match (connect, request.get(Known::Upgrade)) {
        (true, _) => b"CONNECT",
        (false, Some(kind)) if asks => kind,
        _ => return Permission::NotAsked,
    };
    let find = |upgrades: &'_ [Upgrade]| -> Option<(bool, bool)> {
        let found = upgrades.iter().find(|upgrade| upgrade.kind.as_bytes().eq_ignore_ascii_case(kind))?;
        Some((found.enabled, found.connect))
    };
    let of_route = route.and_then(|route| find(&route.upgrades));
    let allowed = match of_route {
        Some((enabled, _)) => enabled,
        None => find(&manager.upgrades).is_some_and(|(enabled, _)| enabled),
    };
    if !allowed {
        return Permission::Refused;
    }
    let ends_here = of_route.is_some_and(|(_, connect)| connect);
    Permission::Granted(match (connect, ends_here) {
        (true, true) => Upgraded::Tunnel,
        (true, false) => Upgraded::Connect,
        (false, _) if kind.eq_ignore_ascii_case(b"websocket") => Upgraded::WebSocket,
        (false, _) => Upgraded::Other,
    })
}

impl Upgraded {
    /// Whether a response agrees to the upgrade.
    pub(crate) fn is_agreed(self, status: u16) -> bool {
        match self {
            Self::WebSocket | Self::Other => status == 101,
            Self::Connect | Self::Tunnel => (200..300).contains(&status),
        }
    }
}
