//! Conditions, dry runs, merge patches, history and reload over HTTP.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::header;

use super::*;
use crate::codes::Code;
use crate::director::{Store, Version};
use crate::model::Document;

const SERVER: &str = "/api/v1/services/tcp:10.10.24.88:80/real-servers/10.10.24.21:80";

impl Api {
    /// With a header, whatever the request's body.
    async fn under(&self, method: Method, path: &str, (name, value): (header::HeaderName, &str), body: Value) -> Answer {
        let body = if method == Method::DELETE { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).header(name, value).body(body).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status, headers: parts.headers, bytes: body.collect().await.unwrap().to_bytes() }
    }
}

#[tokio::test]
async fn every_resource_has_a_tag_that_a_write_can_be_bound_to() {
    let api = Api::new();
    api.add_web().await;
    let bound = [
        (WEB, Method::PATCH, json!({"scheduler": "wlc"})),
        (SERVER, Method::PATCH, json!({"weight": 3})),
        (SERVER, Method::PUT, near(21)),
        (WEB, Method::PUT, web()),
        ("/api/v1/settings", Method::PATCH, json!({"sloppy_tcp": 1})),
        ("/api/v1/settings", Method::DELETE, Value::Null),
        ("/api/v1/marks", Method::PUT, json!({"marks": [{"mark": 7, "destination": "10.10.24.90"}]})),
        ("/api/v1/config", Method::PUT, json!({"services": [web()]})),
        ("/api/v1/marks", Method::POST, json!({"mark": 7, "destination": "10.10.24.91"})),
        ("/api/v1/marks", Method::DELETE, Value::Null),
        (SERVER, Method::DELETE, Value::Null),
        (WEB, Method::DELETE, Value::Null),
        ("/api/v1/services", Method::POST, web()),
        ("/api/v1/services", Method::DELETE, Value::Null),
    ];
    for (path, method, body) in bound {
        let tag = api.get(path).await.header("etag").to_owned();
        let old = format!("\"{}-{}", "99", tag.split_once('-').unwrap().1);
        let before = api.rig.director.document();
        let refused = api.under(method.clone(), path, (header::IF_MATCH, &old), body.clone()).await;
        assert_problem(&refused, 412, "precondition-failed");
        let named = tag.trim_matches('"').split_once('-').unwrap().0;
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(&format!("since revision {named}")) && detail.contains("as in revision 99"), "{detail}");
        assert_eq!(api.rig.director.document(), before);
        let both = format!("W/\"x\", {old}, {tag}");
        let done = api.under(method.clone(), path, (header::IF_MATCH, &both), body).await;
        assert!(done.status.is_success(), "{method} {path}: {}", done.text());
        assert_ne!(api.rig.director.document(), before, "{method} {path}");
        assert_eq!(done.header("baton-revision"), api.rig.director.revision().to_string());
        if done.status != StatusCode::NO_CONTENT {
            assert_ne!(done.header("etag"), tag, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn tag_of_an_answer_is_that_of_what_is_read_next_and_others_stay() {
    let api = Api::new();
    let made = api.post("/api/v1/services", web()).await.header("etag").to_owned();
    let (service, server) = (api.get(WEB).await.header("etag").to_owned(), api.get(SERVER).await.header("etag").to_owned());
    assert_eq!((&service, &server), (&made, &made));
    assert_eq!(api.get(&format!("{WEB}/real-servers")).await.header("etag"), service);
    let edited = api.patch(WEB, json!({"scheduler": "wlc"})).await.header("etag").to_owned();
    assert_ne!(edited, service);
    assert_eq!((api.get(WEB).await.header("etag"), api.get(SERVER).await.header("etag")), (edited.as_str(), server.as_str()));
    api.patch("/api/v1/settings", json!({"sloppy_tcp": 1})).await;
    assert_eq!(api.get(WEB).await.header("etag"), edited);
}

#[tokio::test]
async fn conditions_about_what_is_not_there_and_those_that_cannot_be_read() {
    let api = Api::new();
    let put = async |name, value: &str| api.under(Method::PUT, WEB, (name, value), web()).await;
    assert_problem(&put(header::IF_MATCH, "*").await, 412, "precondition-failed");
    assert_problem(&put(header::IF_MATCH, "\"1-a\"").await, 412, "precondition-failed");
    assert_problem(&api.under(Method::DELETE, WEB, (header::IF_MATCH, "\"1-a\""), Value::Null).await, 404, "no-such-service");
    assert_eq!(put(header::IF_NONE_MATCH, "*").await.status, StatusCode::CREATED);
    assert_problem(&put(header::IF_NONE_MATCH, "*").await, 412, "precondition-failed");
    assert_eq!(put(header::IF_MATCH, "*").await.status, StatusCode::OK);
    assert_problem(&put(header::IF_MATCH, "1-a").await, 400, "malformed");
    assert_problem(&put(header::IF_NONE_MATCH, "\"1-a\"").await, 400, "malformed");
    let both = Request::builder().method(Method::DELETE).uri(WEB).header("if-match", "*").header("if-none-match", "*");
    let answer = api.router.clone().oneshot(both.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(api.rig.director.document().services.len() == 1);
}

#[tokio::test]
async fn every_write_can_be_tried_first() {
    let api = Api::new();
    api.add_web().await;
    let writes = [
        (Method::POST, "/api/v1/services", json!({"protocol": "tcp", "address": "10.10.24.88", "port": 81}), "added"),
        (Method::DELETE, "/api/v1/services", Value::Null, "removed"),
        (Method::PUT, WEB, json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80, "scheduler": "rr"}), "removed"),
        (Method::PATCH, WEB, json!({"scheduler": "wlc"}), "changed"),
        (Method::DELETE, WEB, Value::Null, "removed"),
        (Method::POST, "/api/v1/services/tcp:10.10.24.88:80/real-servers", near(22), "added"),
        (Method::PUT, SERVER, json!({"address": "10.10.24.21"}), "removed"),
        (Method::PATCH, SERVER, json!({"weight": 9}), "changed"),
        (Method::DELETE, SERVER, Value::Null, "removed"),
        (Method::PATCH, "/api/v1/settings", json!({"sloppy_tcp": 1}), "changed"),
        (Method::DELETE, "/api/v1/settings", Value::Null, ""),
        (Method::PUT, "/api/v1/marks", json!({"marks": [{"mark": 7, "destination": "10.10.24.90"}]}), "changed"),
        (Method::POST, "/api/v1/marks", json!({"mark": 7, "destination": "10.10.24.90"}), "changed"),
        (Method::DELETE, "/api/v1/marks", Value::Null, ""),
        (Method::PUT, "/api/v1/config", json!({}), "removed"),
        (Method::POST, "/api/v1/apply", json!({}), "removed"),
    ];
    let before = (api.get("/api/v1/config").await.text().to_owned(), api.rig.workers[0].tables().versions.len());
    for (method, path, body, expected) in writes {
        let tried = format!("{path}?dry_run=true");
        let answer = if body.is_null() {
            api.send(method.clone(), &tried, Body::empty()).await
        } else {
            api.send(method.clone(), &tried, body.to_string()).await
        };
        assert_eq!(answer.status, StatusCode::OK, "{method} {path}: {}", answer.text());
        let found = answer.json();
        for kind in ["added", "removed", "changed"] {
            assert_eq!(found[kind].as_array().unwrap().len(), usize::from(kind == expected), "{method} {path}: {found}");
        }
        assert_eq!(
            (api.get("/api/v1/config").await.text().to_owned(), api.rig.workers[0].tables().versions.len()),
            before,
            "{method} {path}"
        );
        assert_problem(&api.send(method, &format!("{path}?dryrun=true"), body.to_string()).await, 400, "malformed");
    }
    assert_problem(&api.post("/api/v1/services/zero?dry_run=true", json!({})).await, 400, "malformed");
    let refused = api.post("/api/v1/services?dry_run=true", json!({"protocol": "tcp", "address": "224.0.0.1", "port": 80})).await;
    assert_eq!((refused.status, refused.pointers()), (StatusCode::UNPROCESSABLE_ENTITY, vec!["/address".to_owned()]));
}

#[tokio::test]
async fn patch_is_a_merge_patch() {
    let api = Api::new();
    let persistent = json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80, "scheduler": "sh", "flags": ["sh-port"],
        "persistence": {"timeout": 60, "prefix": 24}, "real_servers": [near(21)]});
    api.post("/api/v1/services", persistent).await;
    let merged = api.patch(WEB, json!({"persistence": {"timeout": 90}})).await.json();
    assert_eq!(merged["persistence"], json!({"timeout": 90, "prefix": 24}), "an object changes in what is named");
    let merged = api.patch(WEB, json!({"persistence": {"prefix": null}, "scheduler": null, "timeouts": {"tcp": 5}})).await.json();
    assert_eq!((&merged["persistence"], &merged["scheduler"], &merged["flags"]), (&json!({"timeout": 90}), &json!("wlc"), &json!([])));
    assert_eq!(merged["timeouts"], json!({"tcp": 5}));
    let replaced = api.patch(WEB, json!({"real_servers": [near(22), near(23)]})).await.json();
    let servers: Vec<_> = replaced["real_servers"].as_array().unwrap().iter().map(|server| server["id"].as_str().unwrap()).collect();
    assert_eq!(servers, ["10.10.24.22:80", "10.10.24.23:80"]);
    assert_eq!(api.patch(WEB, json!({"port": 81})).await.pointers(), ["/port"]);
    assert_eq!(api.patch(WEB, json!({"port": 80, "colour": 1})).await.pointers(), ["/colour"]);
    assert_eq!(api.patch(WEB, json!({"persistence": {"timeout": "long"}})).await.pointers(), ["/persistence/timeout"]);
    let one = format!("{WEB}/real-servers/10.10.24.22:80");
    assert_eq!(api.patch(&one, json!({"address": "10.10.24.23"})).await.pointers(), ["/address"]);
    assert_eq!(api.patch(&one, json!({"weight": 4, "mac": null})).await.json()["mac"], Value::Null);
    api.patch("/api/v1/settings", json!({"timeout_udp": 30, "sloppy_tcp": 1})).await;
    assert_eq!(api.patch("/api/v1/settings", json!({"timeout_udp": null})).await.json()["timeout_udp"], 300);
    assert_eq!(api.rig.director.settings().sloppy_tcp, 1);
    assert_problem(&api.patch(WEB, json!([])).await, 400, "malformed");
}

#[tokio::test]
async fn history_and_rollback_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("state.json")).unwrap();
    let mut begun = Version::beginning(Document::default(), "0 services to begin with");
    store.begin_with(&mut begun).unwrap();
    let rig = Rig::with(1, 8, LIMITS, Some(store));
    rig.director.restore(&begun).unwrap();
    let api = Api::with(rig);
    api.add_web().await;
    let told = api.get("/api/v1/history").await.json();
    let newest = &told["changes"][0];
    assert_eq!((&told["revision"], &newest["revision"], &newest["kept"]), (&json!(1), &json!(1), &json!(true)));
    assert_eq!(newest["what"], "virtual service tcp:10.10.24.88:80 added");
    assert!(newest["at"].as_str().unwrap().ends_with('Z') && newest["by"].is_string());
    assert_eq!(api.get("/api/v1/history/1").await.json()["document"], api.get("/api/v1/config").await.json());
    assert_problem(&api.get("/api/v1/history/7").await, 404, "revision-not-kept");
    assert_problem(&api.get("/api/v1/history/x").await, 400, "malformed");
    assert_eq!(api.post("/api/v1/rollback?dry_run=true", json!({})).await.json()["removed"].as_array().unwrap().len(), 1);
    let back = api.post("/api/v1/rollback", json!({"revision": 0})).await.json();
    assert_eq!((&back["revision"], back["removed"].as_array().unwrap().len()), (&json!(2), 1));
    assert_problem(&api.post("/api/v1/rollback", json!({"revision": 9})).await, 404, "revision-not-kept");
    assert_problem(&api.post("/api/v1/rollback", json!({"to": 9})).await, 422, "invalid");
    assert_problem(&Api::new().get("/api/v1/history").await, 500, "history-unreadable");
}

#[tokio::test]
async fn reload_over_http_applies_the_file_or_says_why_not() {
    let file = Arc::new(Mutex::new(Ok(Document::default())));
    let (rig, read, renewals) = (Rig::new(1), Arc::clone(&file), Arc::new(AtomicUsize::new(0)));
    let renewed = Arc::clone(&renewals);
    let renew = move || {
        renewed.fetch_add(1, Ordering::Relaxed);
    };
    let reread = Reread { file: Arc::new(move || read.lock().unwrap().clone()), renew: Arc::new(renew) };
    let facts = Facts { reread, ..Facts::default() };
    let api = Api { router: router(rig.director.clone(), facts), rig };
    let reload = async |path: &str| api.send(Method::POST, path, Body::empty()).await;
    *file.lock().unwrap() = Ok(serde_json::from_value(json!({"services": [web()]})).unwrap());
    assert_eq!(reload("/api/v1/reload?dry_run=true").await.json()["added"].as_array().unwrap().len(), 1);
    assert_eq!((api.rig.director.revision(), renewals.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(reload("/api/v1/reload").await.json()["added"][0]["pointer"], "/services/tcp:10.10.24.88:80");
    assert_eq!(renewals.load(Ordering::Relaxed), 1);
    *file.lock().unwrap() = Err(RereadError::NeedsRestart(vec!["limits.connections".to_owned(), "port[0].mtu".to_owned()]));
    let refused = reload("/api/v1/reload").await;
    assert_problem(&refused, 409, "needs-restart");
    assert!(refused.text().contains("limits.connections, port[0].mtu"));
    *file.lock().unwrap() = Err(RereadError::Faulty("baton.toml:7:1: colour: unknown key".to_owned()));
    assert_problem(&reload("/api/v1/reload").await, 422, "faulty-configuration");
    assert_eq!((api.rig.director.revision(), renewals.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test]
async fn every_problems_type_is_a_page_that_tells_its_meaning() {
    let api = Api::new();
    for code in Code::ALL {
        let page = api.get(&format!("/problems/{code}")).await;
        assert!(page.status == StatusCode::OK && page.text().contains(code.meaning()), "{code}");
    }
    assert_problem(&api.get("/problems/nothing").await, 404, "not-found");
}
