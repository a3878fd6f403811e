//! The exception path's pump: frames from the workers into the TAPs, frames from the TAPs to the first worker.
//!
//! One thread serves all ports. Workers make no system call, so they cannot wake it: it looks at their rings after a
//! pause that doubles from 100 us to 1 ms while nothing comes, and a TAP with something to read ends the pause at once.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dpdk::burst::{BURST, Burst};
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::ring::Ring;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tun_rs::SyncDevice;

use super::announce::SHORTEST;
use super::error::KernelError;
use super::probes::Probes;
use super::watch::Sight;

const PAUSE_SHORT: Duration = Duration::from_micros(100);
const PAUSE_LONG: Duration = Duration::from_millis(1);

/// Bytes of the longest frame that a TAP can give.
const LONGEST: usize = 65_536 + 14;

/// Room before a frame from the TAP for the outer header of a check through a tunnel.
const HEADROOM: usize = 64;

/// What the exception path of a port has moved.
#[derive(Debug, Default)]
pub(super) struct LaneCounters {
    to_kernel: AtomicU64,
    to_kernel_dropped: AtomicU64,
    from_kernel: AtomicU64,
    from_kernel_dropped: AtomicU64,
}

/// What the exception path of a port has moved, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExceptionStats {
    /// Given to the kernel, or to the watch over VIPs.
    pub to_kernel: u64,
    /// Meant for the kernel, which did not take them: TAP full, down or gone.
    pub to_kernel_dropped: u64,
    /// Taken from the kernel and queued for the first worker.
    pub from_kernel: u64,
    /// Taken from the kernel and dropped: mempool empty, ring full, or longer than a frame buffer.
    pub from_kernel_dropped: u64,
}

impl LaneCounters {
    pub(super) fn read(&self) -> ExceptionStats {
        ExceptionStats {
            to_kernel: self.to_kernel.load(Relaxed),
            to_kernel_dropped: self.to_kernel_dropped.load(Relaxed),
            from_kernel: self.from_kernel.load(Relaxed),
            from_kernel_dropped: self.from_kernel_dropped.load(Relaxed),
        }
    }
}

/// One port's part of the pump.
#[derive(Clone)]
pub(super) struct Lane {
    /// The port's number.
    pub(super) port: u16,
    pub(super) to_kernel: Arc<Ring>,
    pub(super) from_kernel: Arc<Ring>,
    pub(super) mempool: Mempool,
    pub(super) counters: Arc<LaneCounters>,
}

impl Lane {
    /// Queues a frame for the first worker, padded to the shortest that Ethernet has; whether it was queued.
    pub(super) fn inject(&self, frame: &[u8]) -> bool {
        let queued = self.copy(frame).is_some_and(|mbuf| self.from_kernel.enqueue(mbuf).is_ok());
        let counter = if queued { &self.counters.from_kernel } else { &self.counters.from_kernel_dropped };
        counter.fetch_add(1, Relaxed);
        queued
    }

    fn copy(&self, frame: &[u8]) -> Option<Mbuf> {
        const PADDING: [u8; SHORTEST] = [0; SHORTEST];
        let mut mbuf = self.mempool.alloc()?;
        mbuf.copy_from(frame)?;
        // Drivers of software devices send what they get, and switches drop what is too short.
        if let Some(padding) = PADDING.get(frame.len()..) {
            mbuf.append(padding.len())?.copy_from_slice(padding);
        }
        Some(mbuf)
    }

    /// Moves up to a burst into the TAP, but for what others say about VIPs; how many frames were there. Without a TAP they are dropped.
    fn to_tap(&self, tap: Option<&SyncDevice>, probes: &Probes, sight: &Sight, burst: &mut Burst) -> usize {
        let taken = self.to_kernel.dequeue_burst(burst);
        let write = |mbuf: &mut Mbuf| {
            if !mbuf.is_contiguous() {
                return false;
            }
            if sight.notice(self.port, mbuf.data()) {
                return true;
            }
            let wanted = probes.come_back(mbuf.data_mut());
            wanted && tap.is_some_and(|tap| tap.send(mbuf.data()).is_ok())
        };
        let written = burst.iter_mut().map(write).filter(|written| *written).count();
        burst.clear();
        self.counters.to_kernel.fetch_add(written as u64, Relaxed);
        self.counters.to_kernel_dropped.fetch_add((taken - written) as u64, Relaxed);
        taken
    }

    /// Moves up to a burst out of the TAP; how many frames were there, or that the TAP is gone.
    fn out_of_tap(&self, tap: &SyncDevice, probes: &Probes, buffer: &mut [u8]) -> Result<usize, io::Error> {
        for moved in 0..BURST {
            match tap.recv(buffer.get_mut(HEADROOM..).unwrap_or_default()) {
                Ok(len) => {
                    let frame = HEADROOM..HEADROOM + len;
                    if let Some(frame) = probes.go_out(buffer, frame).and_then(|frame| buffer.get(frame)) {
                        self.inject(frame);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(moved),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The interface is down: nothing can be read until it is up again.
                Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => return Ok(moved),
                Err(error) => return Err(error),
            }
        }
        Ok(BURST)
    }
}

/// The running pump.
pub(super) struct Pump {
    stop: Arc<AtomicBool>,
    taps: mpsc::Sender<(usize, Arc<SyncDevice>)>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Starts the thread on `lanes`, each without a TAP until [`Self::connect`].
    pub(super) fn start(lanes: Vec<Lane>, probes: Probes, sight: Sight) -> Result<Self, KernelError> {
        const NAME: &str = "baton-pump";
        let stop = Arc::new(AtomicBool::new(false));
        let (taps, new_taps) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name(NAME.into())
            .spawn(move || run(&lanes, &probes, &sight, &new_taps, &stopped))
            .map_err(|source| KernelError::Thread { name: NAME, source })?;
        Ok(Self { stop, taps, thread: Some(thread) })
    }

    /// Gives lane `index` a TAP, non-blocking, in place of the one that it had.
    pub(super) fn connect(&self, index: usize, tap: Arc<SyncDevice>) {
        // The thread ends only when told to, so the channel is open.
        let _ = self.taps.send((index, tap));
    }

    /// Ends the thread and waits for it, about 1 ms. Frames still in the rings stay there.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the exception path's thread had panicked");
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(lanes: &[Lane], probes: &Probes, sight: &Sight, new_taps: &mpsc::Receiver<(usize, Arc<SyncDevice>)>, stop: &AtomicBool) {
    let mut taps: Vec<Option<Arc<SyncDevice>>> = vec![None; lanes.len()];
    let mut burst = Burst::new();
    let mut buffer = vec![0; HEADROOM + LONGEST];
    let mut pause = PAUSE_SHORT;
    while !stop.load(Relaxed) {
        for (index, tap) in new_taps.try_iter() {
            if let Some(place) = taps.get_mut(index) {
                *place = Some(tap);
            }
        }
        let mut moved = 0;
        for (lane, place) in lanes.iter().zip(&mut taps) {
            moved += lane.to_tap(place.as_deref(), probes, sight, &mut burst);
            let Some(tap) = place else { continue };
            match lane.out_of_tap(tap, probes, &mut buffer) {
                Ok(frames) => moved += frames,
                Err(error) => {
                    // Its interface was deleted; a poll on it would return at once for ever.
                    tracing::warn!(%error, "a TAP device is gone");
                    *place = None;
                }
            }
        }
        pause = if moved > 0 { PAUSE_SHORT } else { (pause * 2).min(PAUSE_LONG) };
        wait(&taps, pause);
    }
}

/// Waits until a TAP has something to read, `pause` at most.
fn wait(taps: &[Option<Arc<SyncDevice>>], pause: Duration) {
    let mut waiting: Vec<PollFd<'_>> = taps.iter().flatten().map(|tap| PollFd::new(tap.as_fd(), PollFlags::POLLIN)).collect();
    let woken = ppoll(&mut waiting, Some(TimeSpec::from(pause)), None);
    let broken = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    // A TAP that is down polls as broken: sleep, or the pause would be none.
    if woken.is_err() || waiting.iter().any(|fd| fd.revents().is_some_and(|events| events.intersects(broken))) {
        thread::sleep(pause);
    }
}
