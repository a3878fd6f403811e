//! The watch with a clock of the test's own.

use super::super::announce;
use super::*;

const INTERVAL: Duration = Duration::from_secs(10);
const THEIRS: Mac = [6, 0x21, 0x21, 0x21, 0x21, 0x21];
const OURS: Mac = [2, 0x10, 0x10, 0x10, 0x10, 0x10];

fn vip(last: u8) -> IpAddr {
    IpAddr::from([10, 10, 24, last])
}

fn set(lasts: impl IntoIterator<Item = u8>) -> BTreeSet<IpAddr> {
    lasts.into_iter().map(vip).collect()
}

struct Rig {
    watch: Watch,
    now: Instant,
}

impl Rig {
    fn new(probe: ProbeMode) -> Self {
        let now = Instant::now();
        let plan = WatchPlan { interval: INTERVAL, probe, news: mpsc::channel(1).0 };
        Self { watch: Watch::new(plan, Sight::new([OURS].into()), now), now }
    }

    fn follow(&mut self, vips: &BTreeSet<IpAddr>, taken: &BTreeSet<IpAddr>) {
        self.watch.follow(vips, taken, self.now);
    }

    /// Lets time pass, and gives what was due meanwhile with the milliseconds since the beginning of the pass.
    fn pass(&mut self, time: Duration) -> Vec<(u128, Due)> {
        let (start, end) = (self.now, self.now + time);
        let mut all = Vec::new();
        while let Some(next) = self.watch.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            all.extend(self.watch.due(self.now).into_iter().map(|due| ((self.now - start).as_millis(), due)));
        }
        self.now = end;
        all
    }

    fn claim(&mut self, last: u8, mac: Mac) {
        assert!(self.watch.sight().notice(0, &announce::frame(mac, vip(last))));
        self.watch.hear(self.now);
    }

    fn news(&mut self) -> Vec<VipNews> {
        std::iter::from_fn(|| self.watch.tell()).collect()
    }
}

fn claimed_news(last: u8) -> VipNews {
    VipNews::Claimed(Claim { vip: vip(last), port: 0, mac: THEIRS })
}

#[test]
fn free_vip_is_probed_for_three_times_and_then_told() {
    let mut rig = Rig::new(ProbeMode::Quick);
    rig.follow(&set([88]), &set([]));
    let probe = Due::Probe(vip(88));
    assert_eq!(rig.pass(Duration::from_millis(149)), [(0, probe), (50, probe), (100, probe)]);
    assert_eq!(rig.news(), []);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.news(), [VipNews::Free(vip(88))]);
    assert_eq!(rig.pass(Duration::from_mins(1)), [], "it is the director's turn");
}

#[test]
fn probes_of_rfc_5227_keep_its_times() {
    let mut rig = Rig::new(ProbeMode::Rfc5227);
    rig.follow(&set([88]), &set([]));
    let times: Vec<u128> = rig.pass(Duration::from_secs(20)).into_iter().map(|(at, _)| at).collect();
    // The last entry is the end of the wait, at which nothing is sent.
    assert_eq!(times.len(), 3);
    assert!(
        times[0] <= 1000 && (1000..=2000).contains(&(times[1] - times[0])) && (1000..=2000).contains(&(times[2] - times[1])),
        "{times:?}"
    );
    assert_eq!(rig.news(), [VipNews::Free(vip(88))]);
}

#[test]
fn vip_that_somebody_has_is_probed_for_again_until_it_is_free() {
    let mut rig = Rig::new(ProbeMode::Quick);
    rig.follow(&set([88]), &set([]));
    rig.pass(Duration::from_millis(10));
    rig.claim(88, THEIRS);
    assert_eq!(rig.pass(Duration::from_secs(9)), [], "one answer is enough, and it is not announced");
    assert_eq!(rig.news(), [claimed_news(88)]);
    let again = rig.pass(Duration::from_secs(2));
    assert_eq!(again.len(), 3, "{again:?}");
    assert_eq!(rig.news(), [VipNews::Free(vip(88))]);
}

#[test]
fn vip_that_is_taken_while_it_is_probed_for_is_probed_for_no_more() {
    let mut rig = Rig::new(ProbeMode::Quick);
    rig.follow(&set([88]), &set([]));
    rig.pass(Duration::from_millis(10));
    rig.follow(&set([88]), &set([88]));
    assert!(rig.pass(Duration::from_secs(9)).iter().all(|(_, due)| *due == Due::Ask(vip(88))));
    assert_eq!(rig.news(), []);
}

#[test]
fn each_vip_is_asked_for_once_an_interval() {
    for number in [1, 3, 200] {
        let mut rig = Rig::new(ProbeMode::Off);
        let all = set(1..=number);
        rig.follow(&all, &all);
        rig.pass(INTERVAL);
        let mut asked: Vec<Due> = rig.pass(INTERVAL * 3).into_iter().map(|(_, due)| due).collect();
        asked.sort_unstable();
        for one in all {
            let times = asked.iter().filter(|due| **due == Due::Ask(one)).count();
            assert!((2..=4).contains(&times), "{one} of {number} was asked for {times} times");
        }
    }
}

#[test]
fn many_vips_are_asked_for_at_a_bounded_rate() {
    let mut rig = Rig::new(ProbeMode::Off);
    let all: BTreeSet<IpAddr> = (0..20_000_u32).map(|n| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n))).collect();
    rig.follow(&all, &all);
    let asked: Vec<Due> = rig.pass(Duration::from_secs(50)).into_iter().map(|(_, due)| due).collect();
    assert!(asked.len() <= 25_050, "{}", asked.len());
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 20_000, "and each of them has its turn");
}

#[test]
fn claim_to_a_held_vip_is_answered_at_once_and_then_every_ten_seconds_at_most() {
    let mut rig = Rig::new(ProbeMode::Off);
    rig.follow(&set([88]), &set([88]));
    let mut announced = Vec::new();
    for second in 0..25_u32 {
        rig.claim(88, THEIRS);
        let due = rig.pass(Duration::from_secs(1));
        announced.extend(due.iter().filter(|(_, due)| *due == Due::Announce(vip(88))).map(|_| second));
    }
    assert_eq!(announced, [0, 9, 19], "what comes meanwhile is answered when the ten seconds are over");
    assert_eq!(rig.news().len(), 25);
}

#[test]
fn claim_is_told_once_a_second() {
    let mut rig = Rig::new(ProbeMode::Off);
    rig.follow(&set([88]), &set([88]));
    for _ in 0..100 {
        rig.claim(88, THEIRS);
        rig.pass(Duration::from_millis(10));
    }
    assert_eq!(rig.news(), [claimed_news(88)]);
}

#[test]
fn our_own_and_other_addresses_are_no_claims() {
    let mut rig = Rig::new(ProbeMode::Off);
    rig.follow(&set([88]), &set([88]));
    let sight = rig.watch.sight();
    assert!(sight.notice(0, &announce::frame(OURS, vip(88))), "nothing for the kernel");
    assert!(sight.notice(0, &announce::frame([1, 0, 0x5e, 0, 0, 1], vip(88))));
    assert!(!sight.notice(0, &announce::frame(THEIRS, vip(21))));
    rig.watch.hear(rig.now);
    assert_eq!(rig.news(), []);
    rig.follow(&set([]), &set([]));
    assert!(!sight.notice(0, &announce::frame(THEIRS, vip(88))), "no VIP any more");
}

#[test]
fn flood_of_claims_is_bounded() {
    let mut rig = Rig::new(ProbeMode::Off);
    rig.follow(&set([88]), &set([88]));
    let sight = rig.watch.sight();
    for n in 0..100_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        sight.notice(0, &announce::frame([2, 0, 1, a, b, c], vip(88)));
        if n % 5000 == 0 {
            rig.watch.hear(rig.now);
        }
    }
    rig.watch.hear(rig.now);
    assert!(rig.watch.told.len() <= MOST_CLAIMS && rig.news().len() <= MOST_NEWS);
}
