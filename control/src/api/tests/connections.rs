use dataplane::command::ConnectionRow;
use dataplane::service::Protocol;

use super::*;

/// 1200 entries of clients 10.0.0.0 upwards at two real servers.
fn rows() -> Vec<ConnectionRow> {
    let row = |i: u16| ConnectionRow {
        protocol: if i.is_multiple_of(3) { Protocol::Udp } else { Protocol::Tcp },
        client: SocketAddr::from(([10, 0, i.to_be_bytes()[0], i.to_be_bytes()[1]], 40_000)),
        virtual_address: SocketAddr::from(([10, 10, 24, 88], 80)),
        server: SocketAddr::from(([10, 10, 24, if i.is_multiple_of(2) { 21 } else { 22 }], 80)),
        state: "ESTABLISHED",
        expires_in: 89_950,
        in_packets: 3,
    };
    (0..1_200).map(row).collect()
}

fn with_connections() -> Api {
    let api = Api::with(Rig::new(2));
    for worker in &api.rig.workers {
        let mut tables = worker.tables();
        tables.rows = rows();
        worker.control().report().connections.set(tables.rows.len() as u64);
    }
    api
}

#[tokio::test]
async fn connections_come_in_pages_over_all_workers() {
    let api = with_connections();
    let first = api.get("/api/v1/connections?limit=1").await.json();
    let expected = json!({"protocol": "udp", "client": "10.0.0.0:40000", "virtual": "10.10.24.88:80", "server": "10.10.24.21:80",
        "state": "ESTABLISHED", "expires_in": 899.5, "in_packets": 3, "worker": 0});
    assert_eq!((&first["total"], &first["connections"][0]), (&json!(2_400), &expected));

    let (mut path, mut seen, mut pages) = ("/api/v1/connections?limit=700".to_owned(), Vec::new(), 0);
    loop {
        let page = api.get(&path).await.json();
        pages += 1;
        seen.extend(
            page["connections"].as_array().unwrap().iter().map(|c| (c["worker"].as_u64(), c["client"].as_str().map(str::to_owned))),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/connections?limit=700&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((pages, seen.len()), (4, 2_400));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2_400, "none twice");
}

#[tokio::test]
async fn connections_are_found_by_service_client_and_server() {
    let api = with_connections();
    let count = async |query: &str| {
        api.get(&format!("/api/v1/connections?limit=10000&{query}")).await.json()["connections"].as_array().unwrap().len()
    };
    assert_eq!(count("service=udp:10.10.24.88:80").await, 800);
    assert_eq!(count("service=tcp:10.10.24.88:443").await, 0);
    assert_eq!(count("server=10.10.24.21").await, 1_200);
    assert_eq!(count("client=10.0.0.7").await, 2);
    assert_eq!(count("client=10.0.0.6&server=10.10.24.22").await, 0);
}

#[tokio::test]
async fn wrong_queries_are_all_pointed_at() {
    let api = Api::new();
    let answer = api.get("/api/v1/connections?service=web&client=me&server=10.10.24.21:80&limit=many&cursor=7").await;
    assert_problem(&answer, 422, "invalid");
    assert_eq!(answer.pointers(), ["?service", "?client", "?server", "?limit", "?cursor"]);
    for limit in ["0", "10001", "99999999999999999999999"] {
        assert_eq!(api.get(&format!("/api/v1/connections?limit={limit}")).await.pointers(), ["?limit"]);
    }
    assert_eq!(api.get("/api/v1/connections?cursor=77.4294967295").await.json()["connections"], json!([]));
    assert_eq!(api.delete("/api/v1/connections?client=me").await.pointers(), ["?client"]);
}

#[tokio::test]
async fn connections_end_on_every_worker() {
    let api = with_connections();
    assert_eq!(api.delete("/api/v1/connections?service=udp:10.10.24.88:80").await.json(), json!({"removed": 800}));
    assert_eq!(api.delete("/api/v1/connections?server=10.10.24.22").await.json(), json!({"removed": 800}));
    assert_eq!(api.delete("/api/v1/connections").await.json(), json!({"removed": 800}));
    assert_eq!(api.get("/api/v1/connections").await.json(), json!({"total": 0, "connections": [], "next": null}));
}

#[tokio::test]
async fn a_worker_that_stands_still_makes_questions_end_in_time() {
    let api = with_connections();
    api.rig.workers[0].sleep(true);
    let asked: Vec<_> = (0..5)
        .map(|_| {
            let router = api.router.clone();
            let request = Request::get("/api/v1/connections").body(Body::empty()).unwrap();
            tokio::spawn(async move { router.oneshot(request).await.unwrap().status().as_u16() })
        })
        .collect();
    let mut seen = Vec::new();
    for one in asked {
        seen.push(one.await.unwrap());
    }
    assert!(seen.iter().all(|status| [503, 504].contains(status)) && seen.contains(&504), "{seen:?}");
    api.rig.workers[0].sleep(false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(api.get("/api/v1/connections").await.status, StatusCode::OK);
}
