//! Rows of the benchmark that are measured inside one process: `make bench` runs one family after the other and reads their JSON.
//!
//! `cargo bench -p dataplane --bench rows -- FAMILY [--key value ...]`, where FAMILY is one of [`FAMILIES`]; a process has one EAL,
//! so it measures one family. What a family measures and how stands at the top of its file.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, clippy::cast_precision_loss)]

mod births;
mod established;
mod expiry;
mod feeder;
mod frames;
mod idle;
mod index;
mod instructions;
mod latency;
mod lines;
mod lives;
mod memory;
mod methods;
mod rig;
mod services;
mod spin;
mod statistics;
mod wire;

use std::sync::Arc;

use dpdk::eal::{Eal, EalConfig};
use serde_json::Value;

/// Measures, and tells what came of it.
type Family = fn(&Options) -> Value;

/// Name and function of each family.
const FAMILIES: [(&str, Family); 12] = [
    ("births", births::run),
    ("established", established::run),
    ("expiry", expiry::run),
    ("idle", idle::run),
    ("index", index::run),
    ("instructions", instructions::run),
    ("latency", latency::run),
    ("lives", lives::run),
    ("memory", memory::run),
    ("methods", methods::run),
    ("services", services::run),
    ("statistics", statistics::run),
];

/// What stands behind the family on the command line.
struct Options(Vec<String>);

impl Options {
    fn text(&self, key: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word.strip_prefix("--") == Some(key))?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, key: &str, default: u32) -> u32 {
        self.text(key).map_or(default, |text| text.parse().expect("a number"))
    }
}

/// The CPUs that are measured on: that of `--cpu`, or else the last one, for the worker, and another one for whatever feeds it.
fn cores() -> [u32; 2] {
    let allowed = dpdk::test_support::allowed_cpus();
    let asked = Options(std::env::args().collect()).text("cpu").map(|cpu| cpu.parse().expect("a CPU's number"));
    let worker = asked.filter(|cpu| allowed.contains(cpu)).or(allowed.last().copied()).unwrap_or(0);
    [worker, allowed.into_iter().find(|cpu| *cpu != worker).unwrap_or(worker)]
}

/// A running EAL whose worker 0 has the CPU that is measured on, and worker 1 the other one.
fn eal() -> Arc<Eal> {
    let [worker, feeder] = cores();
    let config = EalConfig {
        program: "rows".into(),
        main_core: feeder,
        worker_cores: vec![worker, feeder],
        no_huge: true,
        memory_mb: Some(128),
        file_prefix: format!("baton-rows-{}", std::process::id()),
        log_level: Some("error".into()),
        extra: vec!["--no-shconf".into()],
        ..EalConfig::default()
    };
    Arc::new(Eal::init(&config).expect("EAL"))
}

/// Runs `f` on the CPU of the worker and gives what it returns.
fn on_worker<T: Send + 'static>(eal: &Arc<Eal>, f: impl FnOnce(&Eal) -> T + Send + 'static) -> T {
    let there = Arc::clone(eal);
    eal.launch(0, move || f(&there)).expect("launched").join().expect("measured")
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let name = words.next().unwrap_or_default();
    let options = Options(words.collect());
    if name == "spin" {
        return spin::run(&options);
    }
    let Some((_, run)) = FAMILIES.iter().find(|(family, _)| *family == name) else {
        let names: Vec<_> = FAMILIES.iter().map(|(family, _)| *family).collect();
        eprintln!("usage: rows FAMILY [--key value ...]; families are spin, {}", names.join(", "));
        std::process::exit(2);
    };
    println!("{}", run(&options));
}
