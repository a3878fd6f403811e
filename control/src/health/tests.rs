use serde_json::json;

use super::*;
use crate::director::scripted::{Rig, service};
use crate::kernel::probes::Networks;
use crate::model::{HealthState, ServiceKey, ServiceSpec};

/// The manager of checks, without anybody who makes them: its tasks are not waited for.
struct Manager {
    rig: Rig,
    probes: Probes,
    tools: Arc<Tools>,
    running: HashMap<Arc<Check>, Running>,
}

impl Manager {
    fn follow(&mut self) {
        follow(&self.rig.director, &self.probes, &self.tools, &mut self.running);
    }

    /// What the only check finds from now on.
    fn found(&self, verdict: Verdict) {
        let (check, one) = self.running.iter().next().unwrap();
        report(&self.rig.director, check, &one.audience)(verdict);
    }

    fn state(&self) -> HealthState {
        self.rig.director.real_server(key(), "10.10.24.21:80".parse().unwrap()).unwrap().health.unwrap().state
    }
}

fn key() -> ServiceKey {
    "tcp:10.10.24.88:80".parse().unwrap()
}

fn checked(interval: &str) -> ServiceSpec {
    let health = json!({"type": "tcp", "interval": interval, "timeout": "1m"});
    let servers = json!([{"address": "10.10.24.21"}]);
    service(json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80, "health": health, "real_servers": servers}))
}

async fn manager() -> Manager {
    let rig = Rig::new(1);
    rig.director.create_service(&checked("2m")).await.unwrap();
    let mut manager =
        Manager { rig, probes: Probes::new(Networks::default()), tools: Arc::new(Tools::new("nobody")), running: HashMap::new() };
    manager.follow();
    manager
}

#[tokio::test]
async fn real_server_that_is_brought_back_before_its_check_ends_is_judged_as_it_was_found() {
    for (verdict, state) in [(Ok(()), HealthState::Up), (Err(Failure::Silent), HealthState::Down)] {
        let mut manager = manager().await;
        manager.found(verdict);
        assert_eq!(manager.state(), state);
        manager.rig.director.delete_service(key()).await.unwrap();
        manager.rig.director.create_service(&checked("2m")).await.unwrap();
        assert_eq!(manager.state(), HealthState::Unknown);
        manager.follow();
        assert_eq!(manager.state(), state);
    }
}

#[tokio::test]
async fn what_a_check_found_while_its_real_server_had_another_is_told_when_it_has_it_again() {
    let mut manager = manager().await;
    manager.found(Ok(()));
    manager.rig.director.delete_service(key()).await.unwrap();
    manager.rig.director.create_service(&checked("3m")).await.unwrap();
    manager.found(Err(Failure::Silent));
    assert_eq!(manager.state(), HealthState::Unknown, "it is another check's to say");
    manager.rig.director.delete_service(key()).await.unwrap();
    manager.rig.director.create_service(&checked("2m")).await.unwrap();
    manager.follow();
    assert_eq!(manager.state(), HealthState::Down);
}
