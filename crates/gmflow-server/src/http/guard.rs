//! What every request has to pass: where it comes from, and its key. What every answer carries.

use super::{App, Shared, set};
use crate::refusal::{Answer, Refusal};
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::time::Instant;
use subtle::ConstantTimeEq;

/// What a page may load: its own files, and pictures that it made itself.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
/// The cookie with the key, for pictures that a page shows.
const COOKIE: &str = "gmflow_key=";

/// Lets a request pass, or refuses it; counts it and gives the answer its headers.
pub(crate) async fn guard(State(app): Shared, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let mut response = match check(&app, &request) {
        Ok(()) => in_one_form(next.run(request).await),
        Err(refusal) if request.method() == Method::OPTIONS => refusal.into_response(),
        // A page of another origin that is listed reads refusals too: they get the headers for it on their way.
        Err(refusal) => {
            request.extensions_mut().insert(refusal);
            next.run(request).await
        }
    };
    app.metrics.request(route, response.status().as_u16(), start.elapsed());
    set(&mut response, "x-request-id", &format!("{:016x}", rand::random::<u64>()));
    set(&mut response, "x-content-type-options", "nosniff");
    set(&mut response, "referrer-policy", "no-referrer");
    set(&mut response, "x-frame-options", "DENY");
    set(&mut response, "content-security-policy", POLICY);
    set(&mut response, "cross-origin-resource-policy", "same-origin");
    if !response.headers().contains_key(header::CACHE_CONTROL) {
        set(&mut response, "cache-control", "no-store");
    }
    response
}

/// Answers requests that the guard has refused.
pub(crate) async fn refused(mut request: Request, next: Next) -> Response {
    match request.extensions_mut().remove::<Refusal>() {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

/// Refusals of the library, such as of a path that is no text, in the form of all others.
fn in_one_form(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_vec());
    let is_ours = kind.is_some_and(|kind| kind.starts_with(b"application/json"));
    if is_ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let reason = status.canonical_reason().unwrap_or("the request cannot be answered");
    Refusal::new(status, "invalid_request", reason).into_response()
}

fn check(app: &App, request: &Request) -> Answer<()> {
    let headers = request.headers();
    let host = host(request)?;
    if !is_allowed(&host, &app.config.hosts) {
        let message = format!("Host: expected localhost, an address or a name of --host, got {host}");
        return Err(Refusal::new(StatusCode::FORBIDDEN, "wrong_host", message));
    }
    check_origin(headers, &host, &app.config.origins)?;
    let path = request.uri().path();
    let is_open = path == "/" || path.starts_with("/page/") || path == "/healthz" || path == "/readyz";
    // A browser asks without the key what it may send with it.
    let asks = request.method() == Method::OPTIONS && !app.config.origins.is_empty();
    match &app.config.key {
        Some(key) if !is_open && !asks && !has_key(headers, key) => {
            let message = "expected the key as Authorization: Bearer KEY, got none or another";
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "wrong_key", message))
        }
        _ => check_length(headers, app.config.limits.body),
    }
}

/// A body that is too long need not be sent.
fn check_length(headers: &HeaderMap, most: usize) -> Answer<()> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most as u64) { Err(super::large_body(most)) } else { Ok(()) }
}

/// The name that the client calls the server by, without the port.
fn host(request: &Request) -> Answer<Authority> {
    let refuse = || Refusal::new(StatusCode::FORBIDDEN, "wrong_host", "Host: expected one name, got none or several");
    let mut named = request.headers().get_all(header::HOST).iter();
    let authority = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        (None, None) => request.uri().authority().cloned(),
        _ => None,
    };
    authority.ok_or_else(refuse)
}

/// A page elsewhere can make a browser ask any name that it controls, but no number: names are listed.
fn is_allowed(host: &Authority, names: &[String]) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// A page of another origin may ask where it is listed.
fn check_origin(headers: &HeaderMap, host: &Authority, origins: &[String]) -> Answer<()> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let own = origin.split_once("://").is_some_and(|(_, place)| place.eq_ignore_ascii_case(host.as_str()));
    if own || origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
        return Ok(());
    }
    let message = format!("Origin: expected this server's own or one of --cors-origin, got {origin}");
    Err(Refusal::new(StatusCode::FORBIDDEN, "wrong_origin", message))
}

/// Whether the key is there; how long the comparison takes says nothing of the key.
fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let is_key = |given: &str| bool::from(given.as_bytes().ct_eq(key.as_bytes()));
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.split_once(' '));
    if bearer.is_some_and(|(scheme, given)| scheme.eq_ignore_ascii_case("bearer") && is_key(given.trim())) {
        return true;
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .any(|cookie| cookie.trim().strip_prefix(COOKIE).is_some_and(is_key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_numbers_localhost_or_listed() {
        let names = ["models.example.org".to_owned()];
        let allowed = |host: &str| is_allowed(&host.parse().unwrap(), &names);
        for host in ["localhost:8080", "127.0.0.1", "[::1]:80", "10.0.0.7:8080", "Models.Example.org"] {
            assert!(allowed(host), "{host}");
        }
        for host in ["evil.example.org", "localhost.evil.org", "127.0.0.1.nip.io"] {
            assert!(!allowed(host), "{host}");
        }
    }

    #[test]
    fn origins_are_the_servers_own_or_listed() {
        let host = "localhost:8080".parse().unwrap();
        let check = |origin: &str| {
            let headers = HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]);
            check_origin(&headers, &host, &["https://a.org".to_owned()]).is_ok()
        };
        assert!(check("http://localhost:8080") && check("https://a.org"));
        for origin in ["http://localhost:9090", "https://b.org", "null", "http://localhost:8080.evil.org"] {
            assert!(!check(origin), "{origin}");
        }
        assert!(check_origin(&HeaderMap::new(), &host, &[]).is_ok());
    }

    #[test]
    fn a_key_comes_in_a_header_or_a_cookie() {
        let has = |name: header::HeaderName, value: &str| {
            has_key(&HeaderMap::from_iter([(name, value.parse().unwrap())]), "secret-key")
        };
        assert!(has(header::AUTHORIZATION, "Bearer secret-key") && has(header::AUTHORIZATION, "bearer secret-key"));
        assert!(has(header::COOKIE, "a=b; gmflow_key=secret-key"));
        assert!(!has(header::AUTHORIZATION, "Bearer secret-kex") && !has(header::AUTHORIZATION, "secret-key"));
        assert!(!has(header::COOKIE, "gmflow_key=") && !has_key(&HeaderMap::new(), "secret-key"));
    }
}
