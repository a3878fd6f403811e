//! Mark rules and services by mark over the API.

use super::*;

fn two() -> Value {
    json!({"marks": [
        {"mark": 7, "destination": "10.10.24.88", "protocol": "tcp", "ports": [80, "8000-8999"]},
        {"mark": 8, "destination": "192.0.2.0/24", "source": "198.51.100.7"},
    ]})
}

#[tokio::test]
async fn mark_rules_are_replaced_added_and_removed() {
    let api = Api::new();
    assert_eq!(api.get("/api/v1/marks").await.json(), json!({"marks": []}));
    let put = api.put("/api/v1/marks", two()).await;
    assert_eq!((put.status, put.json()), (StatusCode::OK, two()));
    let added = api.post("/api/v1/marks", json!({"mark": 9, "destination": "fd00:10::88"})).await;
    assert_eq!((added.status, added.json()["marks"].as_array().map(Vec::len)), (StatusCode::CREATED, Some(3)));
    let config = api.get("/api/v1/config").await.json();
    assert_eq!(config["marks"], added.json()["marks"]);
    assert_eq!(api.delete("/api/v1/marks").await.status, StatusCode::NO_CONTENT);
    assert!(api.get("/api/v1/config").await.json().get("marks").is_none());
    assert_eq!(api.put("/api/v1/config", config.clone()).await.status, StatusCode::OK);
    assert_eq!(api.get("/api/v1/marks").await.json()["marks"], config["marks"]);
}

#[tokio::test]
async fn faulty_mark_rules_are_refused_with_their_places() {
    let api = Api::new();
    api.put("/api/v1/marks", two()).await;
    let faulty = json!({"marks": [{"mark": 0, "destination": "10.10.24.10"}, {"mark": 1, "destination": "10.10.24.88/24"}]});
    let refused = api.put("/api/v1/marks", faulty).await;
    assert_problem(&refused, 422, "invalid");
    assert_eq!(refused.pointers(), ["/marks/0/mark", "/marks/0/destination", "/marks/1/destination"]);
    let refused = api.post("/api/v1/marks", json!({"mark": 1, "destination": "10.10.24.88", "ports": [80, 0]})).await;
    assert_eq!(refused.pointers(), ["/ports/1"]);
    assert_eq!(api.get("/api/v1/marks").await.json(), two());
}

#[tokio::test]
async fn services_by_mark_are_known_by_it() {
    let api = Api::new();
    let added = api.post("/api/v1/services", json!({"mark": 7, "scheduler": "rr", "real_servers": [near(21)]})).await;
    assert_eq!((added.status, added.header("location")), (StatusCode::CREATED, "/api/v1/services/mark:7"));
    let service = added.json();
    assert_eq!((&service["id"], &service["mark"], &service["protocol"]), (&json!("mark:7"), &json!(7), &json!("mark")));
    assert_eq!(service["real_servers"][0]["id"], "10.10.24.21:0");
    assert_problem(&api.post("/api/v1/services", json!({"mark": 7})).await, 409, "service-exists");
    assert_eq!(api.put("/api/v1/services/mark6:7", json!({"mark": 7, "family": "ipv6"})).await.status, StatusCode::CREATED);
    let differs = api.put("/api/v1/services/mark:7", json!({"mark": 8})).await;
    assert_problem(&differs, 422, "invalid");
    assert_eq!(differs.pointers(), ["/mark"]);
    let missing = api.post("/api/v1/services", json!({"protocol": "tcp", "port": 80})).await;
    assert_problem(&missing, 422, "invalid");
    let named = api.post("/api/v1/services/mark:7/real-servers", json!({"address": "10.10.24.22", "port": 80})).await;
    assert_eq!(named.pointers(), ["/port"]);
    let family = api.post("/api/v1/services/mark6:7/real-servers", json!({"address": "10.10.24.22"})).await;
    assert_eq!(family.pointers(), ["/address"]);
    assert_problem(&api.get("/api/v1/services/mark:0").await, 400, "malformed");
    assert_eq!(api.delete("/api/v1/services/mark:7").await.status, StatusCode::NO_CONTENT);
}

/// 10.10.24.21 is the number 168433685: a mark is no address.
#[tokio::test]
async fn mark_that_looks_like_a_real_servers_address_is_none() {
    let api = Api::new();
    let added = api.post("/api/v1/services", json!({"mark": 168_433_685, "real_servers": [near(21)]})).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.text());
}
