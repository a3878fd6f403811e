//! `members` and `bond` of a `[[port]]`: several devices as one.

use super::faults::Collector;
use super::ports::read_device;
use super::reader::{Item, Section};
use super::values::Device;
use super::{Bond, BondMode, Port};

/// As many members as a link aggregation of common switches has at most.
const MOST: usize = 8;

/// The bond of the port that is read, after those in `earlier`; `None` for a port of one device.
pub(super) fn read(section: &mut Section<'_>, earlier: &[Port], faults: &mut Collector<'_>) -> Option<Bond> {
    let members = section.take("members");
    let mode = section.take("bond");
    let Some(item) = members else {
        if let Some(mode) = mode {
            mode.refuse(faults, "only a port with members is a bond");
        }
        return None;
    };
    let choices = [("active-backup", BondMode::ActiveBackup), ("802.3ad", BondMode::Lacp)];
    let mode = mode.and_then(|mode| mode.choice(faults, &choices)).unwrap_or(BondMode::ActiveBackup);
    let mut members: Vec<Device> = Vec::new();
    let list = item.list(faults);
    for entry in &list {
        members.extend(read_member(entry, &members, earlier, faults));
    }
    if !(2..=MOST).contains(&list.len()) {
        item.refuse(faults, format_args!("a bond has 2 to {MOST} members"));
    }
    Some(Bond { mode, members })
}

fn read_member(entry: &Item<'_>, members: &[Device], earlier: &[Port], faults: &mut Collector<'_>) -> Option<Device> {
    let device = read_device(entry, earlier, faults)?;
    if members.iter().any(|other| other.is_same(&device)) {
        entry.refuse(faults, "this bond has this member already");
        return None;
    }
    Some(device)
}
