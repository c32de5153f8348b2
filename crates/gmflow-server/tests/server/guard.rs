//! Who may ask, and what answers carry.

use crate::client::{get, open};
use crate::{plain, start};

#[test]
fn other_hosts_and_origins_are_refused() {
    let server = plain();
    let own = format!("http://{}", server.address);
    let status = |headers: &[(&str, &str)]| open(server.address, "GET", "/v1/models", headers, "").status;
    assert_eq!(status(&[]), 200);
    assert_eq!(status(&[("Origin", &own)]), 200);
    assert_eq!(status(&[("Host", "localhost:1234")]), 200);
    assert_eq!(status(&[("Host", "evil.example.org")]), 403);
    assert_eq!(status(&[("Origin", "http://evil.example.org")]), 403);
    assert_eq!(status(&[("Origin", "null")]), 403);
    let answer = open(server.address, "GET", "/v1/models", &[("Origin", &own)], "").rest();
    assert!(answer.header("access-control-allow-origin").is_none(), "no CORS unless it is asked for");
}

#[test]
fn an_origin_that_is_listed_may_ask() {
    let server = start(|config, _| {
        config.origins = vec!["https://a.example.org".into()];
        config.hosts = vec!["models.example.org".into()];
    });
    let origin = ("Origin", "https://a.example.org");
    let answer = open(server.address, "GET", "/v1/models", &[origin, ("Host", "models.example.org")], "").rest();
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example.org"));
    let asks = ("Access-Control-Request-Method", "POST");
    let answer = open(server.address, "OPTIONS", "/v1/samples", &[origin, asks], "").rest();
    assert_eq!((answer.status, answer.header("access-control-allow-methods")), (200, Some("GET,POST,DELETE")));
    let answer = open(server.address, "GET", "/v1/models", &[("Origin", "https://b.example.org")], "").rest();
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
    let foreign = ("Origin", "https://b.example.org");
    let answer = open(server.address, "OPTIONS", "/v1/samples", &[foreign, asks], "").rest();
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
}

#[test]
fn a_page_elsewhere_can_read_refusals_and_come_again() {
    let server = start(|config, _| {
        config.origins = vec!["https://a.example.org".into()];
        config.key = Some("a-long-secret".into());
        (config.limits.queue, config.limits.streams) = (1, 0);
    });
    let (origin, key) = (("Origin", "https://a.example.org"), ("Authorization", "Bearer a-long-secret"));
    let asks =
        [origin, ("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "last-event-id")];
    let answer = open(server.address, "OPTIONS", "/v1/jobs/j-1/events", &asks, "").rest();
    let allowed = answer.header("access-control-allow-headers").unwrap_or_default();
    assert!(answer.status == 200 && allowed.split(',').any(|name| name == "last-event-id"), "{allowed}");
    let long = r#"{"steps":1000,"n":16,"trace":{"planes":[]}}"#;
    let taken = open(server.address, "POST", "/v1/jobs", &[origin, key], long).rest();
    assert_eq!(taken.status, 202);
    let wrong = ("Authorization", "Bearer another-secret");
    let large = ("Content-Type", "x");
    for (status, headers, body) in [
        (401, vec![origin], "{}".to_owned()),
        (401, vec![origin, wrong], "{}".to_owned()),
        (403, vec![origin, ("Host", "evil.example.org")], "{}".to_owned()),
        (413, vec![origin, key, large], "x".repeat((1 << 20) + 1)),
        (422, vec![origin, key], r#"{"stepz":1}"#.to_owned()),
        (429, vec![origin, key], "{}".to_owned()),
        (429, vec![origin, key], r#"{"stream":true}"#.to_owned()),
    ] {
        let answer = open(server.address, "POST", "/v1/samples", &headers, &body).rest();
        assert_eq!(answer.status, status, "{}", answer.json());
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example.org"), "{status}");
        let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
        for name in ["retry-after", "location", "x-restarted", "x-request-id"] {
            assert!(exposed.split(',').any(|known| known == name), "{status}: {name} is not in {exposed}");
        }
        assert!(answer.header("x-request-id").is_some());
    }
    let id = taken.json()["id"].as_str().unwrap().to_owned();
    open(server.address, "DELETE", &format!("/v1/jobs/{id}"), &[key], "");
}

#[test]
fn a_key_is_asked_for_where_there_is_one() {
    let server = start(|config, _| config.key = Some("a-long-secret".into()));
    let status = |path: &str, headers: &[(&str, &str)]| open(server.address, "GET", path, headers, "").status;
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(status(path, &[]), 200, "{path}");
    }
    for path in ["/v1/models", "/v1/queue", "/metrics", "/openapi.json", "/nothing"] {
        assert_eq!(status(path, &[]), 401, "{path}");
        assert_eq!(status(path, &[("Authorization", "Bearer a-long-secreT")]), 401, "{path}");
    }
    assert_eq!(status("/v1/models", &[("Authorization", "Bearer a-long-secret")]), 200);
    assert_eq!(status("/v1/models", &[("Cookie", "gmflow_key=a-long-secret")]), 200);
    let refused = get(server.address, "/v1/models");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    assert_eq!(refused.json()["error"]["type"], "authentication_error");
}

#[test]
fn the_page_may_load_nothing_from_elsewhere() {
    let server = plain();
    let answer = get(server.address, "/");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("http"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(get(server.address, "/page/index.html").body, answer.body);
    assert_eq!(get(server.address, "/page/none.js").status, 404);
}
