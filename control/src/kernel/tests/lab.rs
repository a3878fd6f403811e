//! A wire of our own: this process in a new network namespace with `d0`, a DPDK port on it, and a peer with `d1` in another.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dpdk::burst::Burst;
use dpdk::eal::Eal;
use dpdk::mempool::Mempool;
use dpdk::port::{Port, PortConfig, RxQueue, TxQueue};
use dpdk::ring::Ring;
use nix::sched::{CloneFlags, unshare};

use super::super::LinkPlan;

/// The port's MAC, which is d0's.
pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
/// The peer's MAC.
pub(super) const PEER: [u8; 6] = [2, 0, 0, 0, 0, 0x21];

/// How long anything may take before a test gives up.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Runs a command of this namespace; its output.
pub(super) fn run(command: &str) -> String {
    finish(Command::new("sh").args(["-c", command]), command)
}

fn finish(command: &mut Command, text: &str) -> String {
    let output = command.output().unwrap();
    let both = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}: {}\n{both}", output.status);
    both
}

/// What a sysctl is.
pub(super) fn sysctl(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim_end().to_owned()
}

/// Waits for something to become true.
pub(super) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The far end of the wire.
pub(super) struct Peer {
    holder: Child,
}

impl Peer {
    /// Puts this process into a namespace of its own, and joins it with the peer's by d0 and d1.
    pub(super) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let holder = Command::new("unshare").args(["--net", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let peer = Self { holder };
        let parent = std::fs::read_link(format!("/proc/{}/ns/net", std::process::id())).unwrap();
        eventually("the peer has a namespace", || {
            std::fs::read_link(format!("/proc/{}/ns/net", peer.holder.id())).is_ok_and(|its| its != own && its != parent)
        });
        run("ip link set lo up");
        run("ip link add d0 address 02:00:00:00:00:10 type veth peer name d1 address 02:00:00:00:00:21");
        run(&format!("ip link set d1 netns {}", peer.holder.id()));
        // What a veth leaves to the next device to finish would never be finished.
        run("ethtool -K d0 tx off gro off >/dev/null 2>&1 || true");
        peer.run("ethtool -K d1 tx off >/dev/null 2>&1 || true");
        peer.run("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.d1.accept_dad=0");
        peer.run("ip link set lo up; ip address add 10.10.24.21/24 dev d1; ip address add fd00:10::21/64 dev d1 nodad; ip link set d1 up");
        peer
    }

    /// Runs a command at the peer; its output.
    pub(super) fn run(&self, command: &str) -> String {
        finish(&mut self.command(command), command)
    }

    fn command(&self, command: &str) -> Command {
        let mut all = Command::new("nsenter");
        all.args(["--net", "--target", &self.holder.id().to_string(), "sh", "-c", command]);
        all
    }

    /// Captures at the peer until [`Capture::end`].
    pub(super) fn capture(&self, filter: &str) -> Capture {
        let file = tempfile::NamedTempFile::new().unwrap();
        let errors = tempfile::NamedTempFile::new().unwrap();
        let command = format!("exec tcpdump -i d1 -nn -e -l --immediate-mode '{filter}'");
        let mut command = self.command(&command);
        let child = command.stdout(file.reopen().unwrap()).stderr(errors.reopen().unwrap()).spawn().unwrap();
        eventually("tcpdump listens", || std::fs::read_to_string(errors.path()).unwrap().contains("listening on"));
        Capture { child, file }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A running tcpdump.
pub(super) struct Capture {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Capture {
    /// The lines so far.
    pub(super) fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(self.file.path()).unwrap().lines().map(str::to_owned).collect()
    }

    /// Ends it; all lines.
    pub(super) fn end(mut self) -> Vec<String> {
        // What was sent last is still on its way.
        thread::sleep(Duration::from_millis(100));
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines()
    }
}

/// A DPDK port on d0 with a worker that hands everything to the kernel and sends what the kernel sends.
pub(super) struct Wire {
    _eal: Eal,
    pub(super) pool: Mempool,
    pub(super) to_kernel: Arc<Ring>,
    pub(super) from_kernel: Arc<Ring>,
    port: Option<Port>,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Wire {
    pub(super) fn new() -> Self {
        run("ip link set d0 up");
        let mut config = dpdk::test_support::config();
        config.vdevs.push("net_af_packet0,iface=d0".into());
        let eal = Eal::init(&config).unwrap();
        let pool = Mempool::new("frames", 4095, 0, dpdk::mempool::DEFAULT_DATA_ROOM, None).unwrap();
        let mut port = Port::by_name(&eal, "net_af_packet0").unwrap();
        let setup = PortConfig { rx_descriptors: 256, tx_descriptors: 256, rss: false, ..PortConfig::default() };
        let (mut rx, mut tx) = port.configure(&setup, &pool).unwrap();
        port.start().unwrap();
        assert_eq!(port.mac(), MAC);
        let ring = |name| Arc::new(Ring::new(name, 512, None).unwrap());
        let (to_kernel, from_kernel) = (ring("to_kernel"), ring("from_kernel"));
        let stop = Arc::new(AtomicBool::new(false));
        let worker = {
            let (rx, tx) = (rx.remove(0), tx.remove(0));
            let (to_kernel, from_kernel, stop) = (Arc::clone(&to_kernel), Arc::clone(&from_kernel), Arc::clone(&stop));
            thread::spawn(move || work(rx, tx, &to_kernel, &from_kernel, &stop))
        };
        Self { _eal: eal, pool, to_kernel, from_kernel, port: Some(port), stop, worker: Some(worker) }
    }

    /// The port as the director would plan it.
    pub(super) fn plan(&self) -> LinkPlan {
        plan(&self.to_kernel, &self.from_kernel, &self.pool)
    }
}

/// A port on d0, without gateways.
pub(super) fn plan(to_kernel: &Arc<Ring>, from_kernel: &Arc<Ring>, pool: &Mempool) -> LinkPlan {
    LinkPlan {
        index: 0,
        name: "lan".into(),
        mac: MAC,
        mtu: 1500,
        addresses: vec!["10.10.24.10/24".parse().unwrap(), "fd00:10::10/64".parse().unwrap()],
        gateways: vec![],
        device_interfaces: vec!["d0".into()],
        static_neighbours: vec![],
        to_kernel: Arc::clone(to_kernel),
        from_kernel: Arc::clone(from_kernel),
        pool: pool.clone(),
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let ended = worker.join();
            assert!(ended.is_ok() || thread::panicking());
        }
        drop(self.port.take());
    }
}

fn work(mut rx: RxQueue, mut tx: TxQueue, to_kernel: &Ring, from_kernel: &Ring, stop: &AtomicBool) {
    let (mut received, mut sent) = (Burst::new(), Burst::new());
    while !stop.load(Ordering::Relaxed) {
        let mut moved = rx.receive(&mut received);
        to_kernel.enqueue_burst(&mut received);
        received.clear();
        moved += from_kernel.dequeue_burst(&mut sent);
        tx.send(&mut sent);
        sent.clear();
        if moved == 0 {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// An address.
pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
