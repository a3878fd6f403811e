//! What the API shows of workers, ports and itself.

use dataplane::verdict::Verdict;

use super::*;

#[tokio::test]
async fn workers_ports_and_neighbours_are_listed() {
    let api = Api::with(Rig::new(2));
    api.add_web().await;
    let report = api.rig.workers[1].control().report();
    report.verdicts[1].add(Verdict::Forwarded, 5);
    report.verdicts[0].add(Verdict::Short, 2);
    report.received[0].add(7);
    let workers = api.get("/api/v1/workers").await.json();
    assert_eq!((&workers[1]["core"], &workers[1]["version"], &workers[1]["capacity"]), (&json!(3), &json!(1), &json!(LIMITS.connections)));
    assert_eq!((&workers[1]["verdicts"], &workers[1]["received"]), (&json!({"forwarded": 5, "short": 2}), &json!(7)));
    assert_eq!(api.get("/api/v1/workers?all=true").await.json()[0]["verdicts"].as_object().unwrap().len(), Verdict::COUNT);
    let ports = api.get("/api/v1/ports").await.json();
    assert_eq!((&ports[1]["name"], &ports[1]["verdicts"]), (&json!("far"), &json!({"forwarded": 5})));
    assert_eq!(api.get("/api/v1/neighbours").await.json()[0]["state"], "incomplete");
}

#[tokio::test]
async fn metrics_name_services_as_node_exporter_does() {
    let api = Api::new();
    api.add_web().await;
    api.rig.workers[0].control().report().verdicts[0].add(Verdict::Forwarded, 11);
    let server = api.rig.workers[0].real_server("10.10.24.21").unwrap();
    server.stats.share(0).active.increment();
    server.stats.share(0).traffic.in_bytes.add(1_234);
    let answer = api.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let labels = r#"local_address="10.10.24.88",local_port="80",remote_address="10.10.24.21",remote_port="80",proto="TCP""#;
    for line in [
        "baton_build_info{version=\"9.9.9\"} 1".to_owned(),
        "baton_revision 1".to_owned(),
        "baton_health_check_delay_seconds_count 0".to_owned(),
        "baton_health_check_delay_seconds_bucket{le=\"+Inf\"} 0".to_owned(),
        "baton_worker_version{worker=\"0\"} 1".to_owned(),
        "baton_frames_total{worker=\"0\",port=\"lan\",verdict=\"forwarded\"} 11".to_owned(),
        "baton_frames_total{worker=\"0\",port=\"far\",verdict=\"short\"} 0".to_owned(),
        "baton_port_missed_frames_total{port=\"lan\"} 7".to_owned(),
        "baton_port_mbuf_failures_total{port=\"lan\"} 6".to_owned(),
        "baton_drops_total{worker=\"0\",port=\"lan\",reason=\"short\"} 0".to_owned(),
        "baton_ring_frames{kind=\"to_kernel\",name=\"lan\"} 3".to_owned(),
        "baton_mempool_buffers_in_use{mempool=\"frames-0\"} 100".to_owned(),
        "baton_service_connections_total{local_address=\"10.10.24.88\",local_port=\"80\",proto=\"TCP\"} 0".to_owned(),
        format!("baton_real_server_connections_active{{{labels}}} 1"),
        format!("baton_real_server_incoming_bytes_total{{{labels}}} 1234"),
        format!("baton_real_server_state{{{labels},state=\"ready\"}} 1"),
        format!("baton_real_server_state{{{labels},state=\"no-mac\"}} 0"),
    ] {
        assert!(answer.text().lines().any(|l| l == line), "{line} is not in\n{}", answer.text());
    }
    assert!(!answer.text().contains("reason=\"forwarded\""), "what was forwarded is no drop");
    let names: Vec<&str> = answer.text().lines().filter(|l| l.starts_with("# TYPE ")).collect();
    assert!(names.iter().all(|l| l.starts_with("# TYPE baton_")), "{names:?}");
}

#[tokio::test]
async fn open_metrics_are_for_those_who_ask_for_them() {
    let api = Api::new();
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    let request = Request::builder().uri("/metrics").header("accept", accept).body(Body::empty()).unwrap();
    let answer = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"\n# EOF\n"));
}

#[tokio::test]
async fn health_of_checked_real_servers_is_a_label() {
    let api = Api::new();
    api.add_web().await;
    assert!(!api.get("/metrics").await.text().contains("baton_real_server_health{"), "nothing is checked");
    api.patch(WEB, json!({"health": {"type": "tcp"}})).await;
    let text = api.get("/metrics").await;
    let of = |state: &str| {
        let lines = text.text().lines().filter(|l| l.starts_with("baton_real_server_health{") && l.contains(&format!("state=\"{state}\"")));
        lines.map(|l| l.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((of("unknown"), of("up"), of("down")), (vec!["1".to_owned()], vec!["0".to_owned()], vec!["0".to_owned()]));
}

#[tokio::test]
async fn node_exporters_names_are_there_when_asked_for_and_totals_outlive_their_services() {
    let api = Api::new();
    api.add_web().await;
    api.rig.workers[0].only_service().stats.share(0).in_packets.add(5);
    api.post("/api/v1/services", json!({"mark": 26, "real_servers": [near(21)]})).await;
    let answer = api.get("/metrics?compat=node_ipvs").await;
    let near = r#"remote_address="10.10.24.21""#;
    for line in [
        "# TYPE node_ipvs_incoming_packets_total counter".to_owned(),
        "node_ipvs_incoming_packets_total 5".to_owned(),
        format!(
            r#"node_ipvs_backend_weight{{local_address="10.10.24.88",local_port="80",{near},remote_port="80",proto="TCP",local_mark=""}} 1"#
        ),
        format!(
            r#"node_ipvs_backend_weight{{local_address="",local_port="0",{near},remote_port="0",proto="FWM",local_mark="0000001A"}} 1"#
        ),
    ] {
        assert!(answer.text().lines().any(|l| l == line), "{line} is not in\n{}", answer.text());
    }
    assert!(answer.text().lines().all(|l| l.starts_with("node_ipvs_") || l.starts_with("# ")), "{}", answer.text());
    api.delete(WEB).await;
    assert!(api.get("/metrics?compat=node_ipvs").await.text().contains("\nnode_ipvs_incoming_packets_total 5\n"));
    assert_problem(&api.get("/metrics?compat=ipvsadm").await, 400, "malformed");
}

#[tokio::test]
async fn health_follows_the_workers() {
    let api = Api::new();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if api.get("/readyz").await.status == StatusCode::OK {
            break;
        }
    }
    assert_eq!((api.get("/livez").await.text(), api.get("/readyz").await.text()), ("ok\n", "ok\n"));
    api.rig.workers[0].sleep(true);
    assert_problem(&api.post("/api/v1/services", web()).await, 504, "timeout");
    assert_problem(&api.get("/readyz").await, 503, "not-ready");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_problem(&api.get("/livez").await, 503, "not-live");
}

#[tokio::test]
async fn the_description_covers_every_route_and_resolves() {
    let api = Api::new();
    let described = api.get("/api/v1/openapi.json").await;
    assert_eq!(described.header("content-type"), "application/json");
    let described = described.json();
    let paths = described["paths"].as_object().unwrap();
    let routes: Vec<String> = paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().filter(|k| *k != "parameters").map(move |method| format!("{method} {path}"))
        })
        .collect();
    let mut expected: Vec<String> = [
        ("/api/v1/services", "get post delete"),
        ("/api/v1/services/{id}", "get put patch delete"),
        ("/api/v1/services/{id}/real-servers", "get post"),
        ("/api/v1/services/{id}/real-servers/{server}", "get put patch delete"),
        ("/api/v1/services/zero", "post"),
        ("/api/v1/services/{id}/zero", "post"),
        ("/api/v1/services/{id}/real-servers/{server}/quarantine", "delete"),
        ("/api/v1/services/{id}/real-servers/{server}/drain", "get put delete"),
        ("/api/v1/vips", "get"),
        ("/api/v1/vips/{vip}/take", "post"),
        ("/api/v1/connections", "get delete"),
        ("/api/v1/events", "get"),
        ("/api/v1/workers", "get"),
        ("/api/v1/ports", "get"),
        ("/api/v1/neighbours", "get"),
        ("/api/v1/marks", "get put post delete"),
        ("/api/v1/settings", "get patch delete"),
        ("/api/v1/config", "get put"),
        ("/api/v1/apply", "post"),
        ("/api/v1/history", "get"),
        ("/api/v1/history/{revision}", "get"),
        ("/api/v1/rollback", "post"),
        ("/api/v1/reload", "post"),
        ("/api/v1/openapi.json", "get"),
        ("/api/v1/docs", "get"),
        ("/metrics", "get"),
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/problems/{code}", "get"),
        ("/ui", "get"),
        ("/", "get"),
    ]
    .iter()
    .flat_map(|(path, methods)| methods.split(' ').map(move |m| format!("{m} {path}")))
    .collect();
    let mut routes = routes;
    routes.sort();
    expected.sort();
    assert_eq!(routes, expected);

    let text = described.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(described["components"]["schemas"].get(reference).is_some(), "{reference} is not described");
    }
    let service = &described["components"]["schemas"]["ServiceSpec"]["properties"];
    assert!(service["address"]["type"] == "string" && service["real_servers"]["type"] == "array", "{service}");
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(k, _)| *k != "parameters") {
            let responses = operation["responses"].as_object().unwrap();
            if path.contains("/v1/")
                && ["post", "put", "patch"].contains(&method.as_str())
                && !path.ends_with("/zero")
                && !path.ends_with("/take")
            {
                assert!(responses["422"]["content"].get("application/problem+json").is_some(), "{method} {path}");
            }
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
        }
    }
}

#[tokio::test]
async fn ten_thousand_services_with_ten_real_servers_each_fit_one_request() {
    let limits = crate::director::Limits { services: 16_384, real_servers: 131_072, ..LIMITS };
    let api = Api::with(Rig::with(1, 8, limits, None));
    let servers: Vec<Value> = (21..=30).map(near).collect();
    let services: Vec<Value> = (0..10_000_u32)
        .map(|i| json!({"protocol": "tcp", "address": format!("10.10.{}.88", 100 + i / 1_000), "port": 1 + i % 1_000, "real_servers": servers}))
        .collect();
    let answer = api.put("/api/v1/config", json!({"services": services})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(api.rig.workers[0].tables().servers.len(), 100_000);
    let text = api.get("/metrics").await;
    assert!(text.text().lines().any(|l| l == "baton_series_left_out 90000"), "per real server for 10 000 of them only");
}

#[tokio::test]
async fn services_by_mark_have_a_label_of_their_own() {
    let api = Api::new();
    for body in [json!({"mark": 7, "real_servers": [near(21)]}), json!({"mark": 26, "family": "ipv6"})] {
        assert_eq!(api.post("/api/v1/services", body).await.status, StatusCode::CREATED);
    }
    let answer = api.get("/metrics").await;
    for line in [
        r#"baton_service_connections_total{local_mark="00000007",proto="FWM"} 0"#,
        r#"baton_service_connections_total{local_mark="0000001A IPv6",proto="FWM"} 0"#,
        r#"baton_real_server_weight{local_mark="00000007",remote_address="10.10.24.21",remote_port="0",proto="FWM"} 1"#,
    ] {
        assert!(answer.text().lines().any(|l| l == line), "{line} is not in\n{}", answer.text());
    }
}

#[tokio::test]
async fn the_page_of_the_api_names_every_operation_and_needs_nothing_from_elsewhere() {
    let api = Api::new();
    let page = api.get("/api/v1/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'unsafe-inline';"));
    let described = api.get("/api/v1/openapi.json").await.json();
    for (path, item) in described["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(_, operation)| operation.get("responses").is_some()) {
            let title = format!("<b class=\"m {method}\">{}</b><code>{path}</code></h3>", method.to_uppercase());
            assert!(page.text().contains(&title) && operation["tags"][0].is_string(), "{method} {path}");
            let refused = operation["responses"]["401"]["content"].get("application/problem+json").is_some();
            assert!(refused, "{method} {path}");
        }
    }
    for name in described["components"]["schemas"].as_object().unwrap().keys() {
        assert!(page.text().contains(&format!("<h3 id=\"{name}\">")), "{name}");
    }
    for fetched in ["<script", "<link", "src=", "http://", "https://", "url("] {
        assert!(!page.text().contains(fetched), "{fetched}");
    }
}

/// The dashboard's table of services: its events name services too.
fn service_table(page: &Answer) -> &str {
    page.text().split("<h2>").nth(1).unwrap()
}

#[tokio::test]
async fn the_dashboard_shows_services_and_real_servers_in_words() {
    let api = Api::new();
    let empty = api.get("/ui").await;
    assert!(empty.text().contains("There are no virtual services.") && empty.text().contains("content=\"5\""));
    api.add_web().await;
    let mut other = web();
    other["address"] = json!("10.10.24.89");
    other["real_servers"] = json!([{"address": "10.10.24.22"}]);
    assert_eq!(api.post("/api/v1/services", other).await.status, StatusCode::CREATED);
    let page = api.get("/ui").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    for part in ["Baton 9.9.9", "tcp:10.10.24.88:80", "10.10.24.21:80", ">ready<", ">no MAC<", "1 in trouble", "02:00:00:00:00:15", "lan"] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    assert!(!page.text().contains("<script") && !page.text().contains("http://") && !page.text().contains("https://"));
    let trouble = api.get("/ui?trouble=true&refresh=0").await;
    assert!(service_table(&trouble).contains("tcp:10.10.24.89:80") && !service_table(&trouble).contains("tcp:10.10.24.88:80"));
    assert!(!trouble.text().contains("http-equiv"));
    let found = api.get("/ui?search=24.21:80&page=9").await;
    assert!(service_table(&found).contains("tcp:10.10.24.88:80") && !service_table(&found).contains("tcp:10.10.24.89:80"));
    let strange = api.get("/ui?search=%22%3E%3Cscript%3E").await;
    assert!(!strange.text().contains("<script") && strange.text().contains("None is like that."), "{}", strange.text());
    assert_problem(&api.get("/ui?page=0").await, 400, "malformed");
    assert_eq!(api.get("/").await.header("location"), "/ui");
}

#[tokio::test]
async fn the_dashboard_has_a_page_for_every_200_services() {
    let api = Api::with(Rig::with(1, 8, crate::director::Limits { services: 256, ..LIMITS }, None));
    let services: Vec<Value> = (1..=201).map(|port| json!({"protocol": "udp", "address": "10.10.24.88", "port": port})).collect();
    assert!(api.put("/api/v1/config", json!({"services": services})).await.status.is_success());
    let (first, last) = (api.get("/ui").await, api.get("/ui?page=2").await);
    assert!(service_table(&first).contains("udp:10.10.24.88:200<") && !service_table(&first).contains("udp:10.10.24.88:201<"));
    assert!(service_table(&last).contains("udp:10.10.24.88:201<") && last.text().contains("Page 2 of 2"));
    assert!(first.text().contains("href=\"/ui?page=2&amp;"));
}
