//! May this origin use what the route serves? Preflights are answered here, other requests get the headers that tell
//! the browser so.

use super::{Passage, Passed, Step};
use crate::http::exchange::Cx;
use crate::http::head::{Head, Known};
use crate::http::reply::LocalReply;
use crate::snapshot::filter::CorsPolicy;

/// What a response to an allowed origin has to say.
#[derive(Debug)]
pub(super) struct Answer<'v> {
    policy: &'v CorsPolicy,
    origin: Box<[u8]>,
}

impl Answer<'_> {
    pub(super) fn change_response(&self, response: &mut Head) {
        response.set_in_place(Known::AccessControlAllowOrigin, &self.origin);
        if self.policy.allow_credentials == Some(true) {
            response.set_in_place(Known::AccessControlAllowCredentials, b"true");
        }
        if !self.policy.expose_headers.is_empty() {
            response.set_in_place(Known::AccessControlExposeHeaders, &self.policy.expose_headers);
        }
    }
}

pub(super) fn request<'v>(cx: &Cx<'v>, request: &Head, policy: &'v CorsPolicy, passed: &mut Passed<'v>) -> Passage {
    let (enabled, shadow) = {
        let mut rng = cx.worker.rng.borrow_mut();
        (policy.enabled.includes(rng.u64(..)), policy.shadow_enabled.includes(rng.u64(..)))
    };
    if !enabled && !shadow {
        return Passage::Continue;
    }
    let Some(origin) = request.get(Known::Origin).filter(|origin| !origin.is_empty()) else {
        return Passage::Continue;
    };
    let counters = cx.http.cors.touch();
    let allowed = policy.allows(origin);
    let count = if allowed { &counters.origin_valid } else { &counters.origin_invalid };
    count.inc();
    if !enabled {
        return Passage::Continue;
    }
    let preflight = request.method() == b"OPTIONS"
        && request.get(Known::AccessControlRequestMethod).is_some_and(|method| !method.is_empty());
    if !allowed {
        // A browser takes an answer without an allowed origin for a refusal.
        return if preflight && policy.forward_not_matching_preflights == Some(false) {
            Passage::Reply(answer_preflight(policy, request, b""))
        } else {
            Passage::Continue
        };
    }
    passed.steps.push(Step::Cors(Answer { policy, origin: origin.into() }));
    if preflight { Passage::Reply(answer_preflight(policy, request, origin)) } else { Passage::Continue }
}

/// The answer to a preflight; without an origin it allows none.
fn answer_preflight(policy: &CorsPolicy, request: &Head, origin: &[u8]) -> LocalReply {
    let mut reply = LocalReply::bare(200, "cors_response");
    let mut add = |name, value: &[u8]| {
        if !value.is_empty() {
            reply.headers.push((name, value.to_vec()));
        }
    };
    add(Known::AccessControlAllowOrigin, origin);
    if policy.allow_credentials == Some(true) {
        add(Known::AccessControlAllowCredentials, b"true");
    }
    add(Known::AccessControlAllowMethods, &policy.allow_methods);
    add(Known::AccessControlAllowHeaders, &policy.allow_headers);
    add(Known::AccessControlMaxAge, &policy.max_age);
    let private = request.get(Known::AccessControlRequestPrivateNetwork);
    if policy.allow_private_network == Some(true) && private == Some(b"true") {
        add(Known::AccessControlAllowPrivateNetwork, b"true");
    }
    reply
}
