//! MAC addresses as the documents write them.

/// Reads `02:00:00:00:00:15`: six pairs of hexadecimal digits with colons; `None` for anything else.
pub fn parse(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut pairs = text.split(':');
    for byte in &mut mac {
        let pair = pairs.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(mac)
}

/// Writes a MAC with colons and small letters.
pub fn format(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Why frames cannot be sent to this MAC, in words; `None` when they can.
pub(super) fn unfit(mac: [u8; 6], mut own: impl Iterator<Item = [u8; 6]>) -> Option<&'static str> {
    if mac == [0; 6] {
        Some("is all zero")
    } else if mac == [0xff; 6] {
        Some("is the broadcast address")
    } else if mac[0] & 1 == 1 {
        Some("is a multicast address")
    } else if own.any(|one| one == mac) {
        Some("is one of the director's own")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mac = [2, 0, 0xab, 0, 0x0f, 0x15];
        assert_eq!(format(mac), "02:00:ab:00:0f:15");
        assert_eq!(parse(&format(mac)), Some(mac));
        assert_eq!(parse("02:00:AB:00:0F:15"), Some(mac));
    }

    #[test]
    fn other_texts_are_not_a_mac() {
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:15:01", "2:0:0:0:0:15", "02-00-00-00-00-15", "02:00:00:00:00:1g", "+2:00:00:00:00:15"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_mac_that_no_neighbour_can_have_is_unfit() {
        let own = [2, 0, 0, 0, 0xd0, 0];
        let why = |mac| unfit(mac, [own].into_iter());
        assert!(why([0; 6]).is_some());
        assert!(why([0xff; 6]).is_some());
        assert!(why([1, 0, 0x5e, 0, 0, 1]).is_some());
        assert!(why(own).is_some());
        assert_eq!(why([2, 0, 0, 0, 0, 0x15]), None);
    }
}
