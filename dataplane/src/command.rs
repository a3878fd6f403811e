//! How the control plane changes a worker: commands over a lock-free ring, applied between two bursts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;

use crate::address::Address;
use crate::connection::Replies;
use crate::marks::Marks;
use crate::routes::Routes;
use crate::service::{Protocol, RealServer, ServerId, ServiceId, VirtualService};
use crate::settings::Settings;
use crate::stats::Counter;
use crate::verdict::VerdictCounters;

/// The addresses that the director answers for, on all ports.
#[derive(Debug, Default)]
pub struct LocalAddresses {
    /// Every VIP and DIP with the ports (a bit each) on which it is answered.
    pub addresses: hashbrown::HashMap<Address, u64>,
    /// The VIPs: those among them, and those that are not answered for as long as another machine may have them.
    pub vips: hashbrown::HashSet<Address>,
    /// The VIPs that the control plane's health checks ask real servers for: answers from those to a DIP are the kernel's.
    pub probed: hashbrown::HashSet<Address>,
    /// Every MAC of our own, in port order.
    pub macs: Vec<[u8; 6]>,
}

/// A change that a worker applies whole, between two bursts.
///
/// The worker swaps each part with what it held and sends the same box back, so that what was replaced is freed by the
/// control plane and the packet path neither allocates nor frees.
#[derive(Debug, Default)]
pub struct Batch {
    /// The version of the configuration that this batch leads to.
    pub version: u64,
    /// Services to put (`Some`) or to take out (`None`) at their places.
    pub services: Vec<(ServiceId, Option<Arc<VirtualService>>)>,
    /// Real servers to put or to take out at their places.
    pub servers: Vec<(ServerId, Option<Arc<RealServer>>)>,
    /// New set of own addresses.
    pub locals: Option<Arc<LocalAddresses>>,
    /// New mark rules, all of them.
    pub marks: Option<Arc<Marks>>,
    /// New settings.
    pub settings: Option<Settings>,
    /// New ways to clients.
    pub routes: Option<Arc<Routes>>,
    /// The index of replies, with the first masquerading real server; comes back if the worker has one already.
    pub replies: Option<Replies>,
}

/// Which connection entries are meant; what is `None` matches everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionFilter {
    /// The protocol; with [`Protocol::Ip`], VIP and vport name a service by mark, and all that was made through it is meant.
    pub protocol: Option<Protocol>,
    /// The VIP.
    pub virtual_address: Option<Address>,
    /// The vport.
    pub virtual_port: Option<u16>,
    /// The client's address.
    pub client: Option<Address>,
    /// The RIP.
    pub server: Option<Address>,
    /// The real server's place.
    pub server_id: Option<ServerId>,
}

/// A connection entry as listings show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRow {
    /// The protocol; [`Protocol::Ip`] for the template of a service by mark.
    pub protocol: Protocol,
    /// Client address and port.
    pub client: SocketAddr,
    /// VIP and vport.
    pub virtual_address: SocketAddr,
    /// RIP and rport.
    pub server: SocketAddr,
    /// The state's name as `ipvsadm -lc` shows it: `ESTABLISHED`, `FIN_WAIT`, `UDP`, ...
    pub state: &'static str,
    /// Hundredths of a second until the entry ends.
    pub expires_in: u32,
    /// Packets from the client.
    pub in_packets: u32,
}

/// A page of connections: asked for with room in `rows`, returned filled.
#[derive(Debug, Default)]
pub struct ConnectionPage {
    /// Which entries are meant.
    pub filter: ConnectionFilter,
    /// Where to begin: 0, or what `next` said.
    pub cursor: u32,
    /// Filled by the worker up to the capacity that the control plane gave; the worker never grows it.
    pub rows: Vec<ConnectionRow>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<u32>,
}

/// An order to end connection entries: returned with the count.
#[derive(Debug, Default)]
pub struct Flush {
    /// Which entries are meant.
    pub filter: ConnectionFilter,
    /// How many entries were ended.
    pub removed: u64,
}

/// What the control plane tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Apply a change; comes back as [`Reply::Applied`].
    Apply(Box<Batch>),
    /// List connections; comes back as [`Reply::Connections`].
    Connections(Box<ConnectionPage>),
    /// End connections; comes back as [`Reply::Flushed`].
    Flush(Box<Flush>),
}

/// What a worker sends back: always the box that it was given.
#[derive(Debug)]
pub enum Reply {
    /// The change is in force; the box holds what it replaced.
    Applied(Box<Batch>),
    /// The page is filled.
    Connections(Box<ConnectionPage>),
    /// The entries are gone.
    Flushed(Box<Flush>),
}

/// What a worker tells about itself, written by the worker alone and read by anyone.
#[derive(Debug)]
pub struct WorkerReport {
    /// The version of the configuration that it runs.
    pub version: Counter,
    /// Turns of the loop, also without traffic: stands still only if the worker does.
    pub turns: Counter,
    /// TSC cycles in turns that found work.
    pub busy_cycles: Counter,
    /// TSC cycles in turns that found none, sleep included.
    pub idle_cycles: Counter,
    /// Connection entries held.
    pub connections: Counter,
    /// Half-open entries among them.
    pub half_open: Counter,
    /// Frames received, per port.
    pub received: Vec<Counter>,
    /// Frames sent, per port: forwarded, answered, ICMP errors, resets, further fragments and the kernel's own.
    pub sent: Vec<Counter>,
    /// ICMP errors sent.
    pub icmp_errors: Counter,
    /// TCP resets sent.
    pub resets: Counter,
    /// Tentative entries that ended to make room for new connections.
    pub recycled: Counter,
    /// Packets forwarded without an entry because there was no room for one.
    pub without_entry: Counter,
    /// Entries that `drop_entry` ended.
    pub dropped_entries: Counter,
    /// New connections whose template found no room in the table that workers agree on templates in.
    pub unshared_templates: Counter,
    /// The defences in force, as bits: 1 `drop_entry`, 2 `drop_packet`, 4 `secure_tcp`.
    pub defences: Counter,
    /// Second and later fragments of tunnelled packets sent.
    pub fragments: Counter,
    /// Frames handed to other workers, which give them their verdicts.
    pub handed_over: Counter,
    /// Frames taken over from other workers, which received them.
    pub taken_over: Counter,
    /// Frames from the kernel that were sent on.
    pub injected: Counter,
    /// Frames counted as sent, or as what they are, that another worker sends: this one has no transmit queue.
    pub sent_by_others: Counter,
    /// Frames that other workers counted so, and that this one has sent: they are in `sent` too.
    pub sent_for_others: Counter,
    /// Verdicts on frames that were received or taken over, per port that they came by.
    pub verdicts: Vec<VerdictCounters>,
}

impl WorkerReport {
    /// A report at zero for a worker that serves `ports` ports.
    pub fn new(ports: usize) -> Self {
        fn many<T: Default>(n: usize) -> Vec<T> {
            std::iter::repeat_with(T::default).take(n).collect()
        }
        Self {
            version: Counter::default(),
            turns: Counter::default(),
            busy_cycles: Counter::default(),
            idle_cycles: Counter::default(),
            connections: Counter::default(),
            half_open: Counter::default(),
            received: many(ports),
            sent: many(ports),
            icmp_errors: Counter::default(),
            resets: Counter::default(),
            recycled: Counter::default(),
            without_entry: Counter::default(),
            dropped_entries: Counter::default(),
            unshared_templates: Counter::default(),
            defences: Counter::default(),
            fragments: Counter::default(),
            handed_over: Counter::default(),
            taken_over: Counter::default(),
            injected: Counter::default(),
            sent_by_others: Counter::default(),
            sent_for_others: Counter::default(),
            verdicts: many(ports),
        }
    }
}

#[derive(Debug)]
struct Shared {
    commands: ArrayQueue<Command>,
    replies: ArrayQueue<Reply>,
    /// Commands pushed so far: the worker compares it with what it has taken, one relaxed load a turn instead of a fenced pop.
    doorbell: CachePadded<AtomicU32>,
    stop: AtomicBool,
    report: WorkerReport,
}

/// The control plane's end of a worker's rings; cheap to clone, safe to share.
#[derive(Clone, Debug)]
pub struct ControlEnd(Arc<Shared>);

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd {
    shared: Arc<Shared>,
    taken: u32,
}

/// Makes the two ends of a worker's rings, `depth` commands deep, for a worker that serves `ports` ports.
///
/// At most `depth` commands may be unanswered, so the reply ring, twice as deep, never fills.
pub fn channel(depth: usize, ports: usize) -> (ControlEnd, WorkerEnd) {
    let shared = Arc::new(Shared {
        commands: ArrayQueue::new(depth),
        replies: ArrayQueue::new(depth * 2),
        doorbell: CachePadded::new(AtomicU32::new(0)),
        stop: AtomicBool::new(false),
        report: WorkerReport::new(ports),
    });
    (ControlEnd(Arc::clone(&shared)), WorkerEnd { shared, taken: 0 })
}

impl ControlEnd {
    /// Hands a command to the worker; gives it back when the ring is full, to be sent again later.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.0.commands.push(command)?;
        self.0.doorbell.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Takes the oldest reply, if there is one.
    pub fn receive(&self) -> Option<Reply> {
        self.0.replies.pop()
    }

    /// Tells the worker to finish its turn and end.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
    }

    /// What the worker tells about itself.
    pub fn report(&self) -> &WorkerReport {
        &self.0.report
    }
}

impl WorkerEnd {
    /// Takes the oldest command, if there is one. Cost without one: one load.
    #[inline]
    pub fn take(&mut self) -> Option<Command> {
        if self.shared.doorbell.load(Ordering::Acquire) == self.taken {
            return None;
        }
        let command = self.shared.commands.pop()?;
        self.taken = self.taken.wrapping_add(1);
        Some(command)
    }

    /// Sends a reply; gives it back when the control plane has not taken the earlier ones.
    pub fn reply(&self, reply: Reply) -> Result<(), Reply> {
        self.shared.replies.push(reply)
    }

    /// Whether the worker is to end.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// What the worker tells about itself.
    #[inline]
    pub fn report(&self) -> &WorkerReport {
        &self.shared.report
    }
}
