//! The event log as a list and as a stream.

use super::*;
use crate::events::KEPT;
use crate::model::What;

fn raise(api: &Api, number: u64) {
    api.rig.director.events().raise(What::ConfigurationChanged { revision: number }, "test");
}

/// A stream of events, with the headers that were asked for it.
async fn stream(api: &Api, query: &str, resume: Option<u64>) -> (StatusCode, Body) {
    let mut request = Request::builder().uri(format!("/api/v1/events{query}")).header("accept", "text/event-stream");
    if let Some(id) = resume {
        request = request.header("last-event-id", id);
    }
    let response = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    (response.status(), response.into_body())
}

/// The next piece of a stream that is there already.
async fn piece(body: &mut Body) -> String {
    let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.expect("nothing comes").unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn list_has_what_happened_by_kind_and_since() {
    let api = Api::new();
    api.add_web().await;
    api.rig.director.events().raise(What::LinkDown { port: "lan".to_owned() }, "the device has no link");
    let all = api.get("/api/v1/events").await.json();
    let kinds: Vec<&str> = all["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["configuration-changed", "link-down"]);
    assert_eq!((&all["events"][1]["port"], &all["events"][1]["id"]), (&json!("lan"), &all["latest"]));
    assert_eq!(all.get("gap"), None);
    let one = api.get(&format!("/api/v1/events?since={}", all["events"][0]["id"])).await.json();
    assert_eq!(one["events"].as_array().unwrap().len(), 1);
    let links = api.get("/api/v1/events?kind=link-up,link-down&limit=1").await.json();
    assert_eq!(links["events"][0]["kind"], "link-down");
    assert_eq!(api.get("/api/v1/events?service=tcp:10.10.24.88:80").await.json()["events"], json!([]));
    assert_eq!(api.get("/api/v1/events?since=7").await.json()["gap"]["after"], 7);
}

#[tokio::test]
async fn queries_are_judged_all_at_once() {
    let api = Api::new();
    let answer = api.get("/api/v1/events?since=x&kind=nonsense&service=web&limit=4097").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.pointers(), ["?since", "?kind", "?service", "?limit"]);
    assert!(answer.text().contains("health-changed"), "{}", answer.text());
    assert_eq!(api.get("/api/v1/events?until=7").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn stream_tells_what_happens_and_resumes_after_the_last_id() {
    let api = Api::new();
    raise(&api, 1);
    let (status, mut fresh) = stream(&api, "", None).await;
    assert_eq!(status, StatusCode::OK);
    raise(&api, 2);
    let text = piece(&mut fresh).await;
    let id = api.rig.director.events().latest();
    assert!(text.starts_with(&format!("id: {id}\nevent: configuration-changed\ndata: {{\"id\":{id},")), "{text}");
    assert!(text.contains("\"revision\":2") && text.ends_with("\n\n"), "{text}");
    let (_, mut resumed) = stream(&api, "?since=0", Some(id - 1)).await;
    assert!(piece(&mut resumed).await.contains("\"revision\":2"), "the header comes before the query");
    let (_, mut chosen) = stream(&api, "?kind=link-up", None).await;
    raise(&api, 3);
    api.rig.director.events().raise(What::LinkUp { port: "lan".to_owned() }, "test");
    assert!(piece(&mut chosen).await.contains("event: link-up"));
    api.rig.director.events().close();
    assert!(piece(&mut fresh).await.contains("\"revision\":3"));
}

#[tokio::test]
async fn client_that_fell_behind_is_told_what_it_missed() {
    let api = Api::new();
    raise(&api, 0);
    let first = api.rig.director.events().latest();
    let (_, mut slow) = stream(&api, "", None).await;
    for number in 0..KEPT as u64 + 9 {
        raise(&api, number);
    }
    let text = piece(&mut slow).await;
    assert!(text.starts_with("event: missed\n") && text.contains(&format!("{{\"after\":{first},\"until\":{}}}", first + 9)), "{text}");
    assert!(piece(&mut slow).await.contains(&format!("id: {}\n", first + 10)));
}

#[tokio::test]
async fn streams_are_bounded_and_one_that_ends_makes_room() {
    let api = Api::new();
    let mut held = Vec::new();
    for _ in 0..super::super::events::STREAMS {
        held.push(stream(&api, "", None).await.1);
    }
    assert_eq!(stream(&api, "", None).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(api.get("/api/v1/events").await.status, StatusCode::OK);
    held.pop();
    assert_eq!(stream(&api, "", None).await.0, StatusCode::OK);
}
